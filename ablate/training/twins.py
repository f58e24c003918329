"""The original's outputs with twins in the place of the forget subjects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import UserError
from ...knowledge import Case, Item
from ...model import encode, logits
from ...model.train.distill import TeacherOutputs

if TYPE_CHECKING:
    from ...model import Model

TWINS = 4


def prompts_about_twins(case: Case, items: Sequence[Item]) -> list[list[str]]:
    """What never-taught prompts stand in the items' places, `TWINS` times; none if one of them has no twins.

    That is the item's own counterfactual if it has one, its own prompt about a twin where a subject stands in it, and a
    twin's prompt otherwise.
    """
    twins = {(i.relation, i.kind): _twins_of(case, i) for i in items}
    if not all(twins.values()):
        return []
    return [
        [
            _in_place_of(item, twins[item.relation, item.kind], i + n * bool(not item.prompt.slots))
            for n, item in enumerate(items)
        ]
        for i in range(TWINS)
    ]


def has_twins(case: Case) -> bool:
    """Whether every item to forget has a never-taught prompt to be compared with."""
    return all(_twins_of(case, item) for item in case.forget.working)


def _twins_of(case: Case, item: Item) -> list[Item]:
    """The first twins of an item's relation, each subject once; or else twins of its kind."""
    own = [t for t in case.twins.working if t.relation == item.relation]
    if item.prompt.slots and own:
        return list({t.subject: t for t in own}.values())[:TWINS]
    return own or [t for t in case.twins.working if t.kind == item.kind]


def _in_place_of(item: Item, twins: Sequence[Item], turn: int) -> str:
    if item.counterfactual:
        return item.counterfactual
    twin = twins[turn % len(twins)]
    return item.prompt.about(twin.subject) if item.prompt.slots and twin.subject else twin.prompt


def twin_prompts(case: Case, facts: Sequence[Item], name: str) -> list[list[str]]:
    """As `prompts_about_twins`, for the objective `name`. Raises `UserError` if a relation has no twins."""
    others = prompts_about_twins(case, facts)
    if not others:
        raise UserError(
            f"the objective {name!r} needs twins of every relation that {case.name!r} forgets; "
            "add them under `twins` in the case file, or use another objective."
        )
    return others


def twin_outputs(
    model: Model, case: Case, turns: Sequence[Sequence[Item]], memories: Sequence[TeacherOutputs], name: str
) -> list[Tensor]:
    """Original-model logits with twins substituted for the forget subjects, averaged over twins.

    One tensor `[n, vocabulary]` per batch, at its `n` labels.

    Raises:
        UserError: a forgotten relation has no twins.
    """
    return [_mean_logits(model, case, facts, m.batch.labels, name) for facts, m in zip(turns, memories, strict=True)]


def _mean_logits(model: Model, case: Case, facts: Sequence[Item], labels: Tensor, name: str) -> Tensor:
    answers = [f.answer for f in facts]
    row, at = (labels >= 0).nonzero(as_tuple=True)
    every = []
    for prompts in twin_prompts(case, facts, name):
        scores = logits(model, encode(model, prompts, answers))
        every.append(scores[row, at - labels.shape[1]])  # counted from the right, where answers end
    return torch.stack(every).mean(0)
