"""The original's outputs with twins in the place of the forget subjects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import UserError
from ...knowledge import Case, Fact
from ...model import encode, logits
from ...model.train.distill import TeacherOutputs

if TYPE_CHECKING:
    from ...model import Model

TWINS = 4


def prompts_about_twins(case: Case, facts: Sequence[Fact]) -> list[list[str]]:
    """The facts' prompts with twins in the subjects' places, `TWINS` times; none if a relation has no twins."""
    twins = {r: [t.subject for t in case.twins.working if t.relation == r][:TWINS] for r in {f.relation for f in facts}}
    if not all(twins.values()):
        return []
    return [
        [f.prompt.replace(f.subject, twins[f.relation][i % len(twins[f.relation])]) for f in facts]
        for i in range(TWINS)
    ]


def twin_prompts(case: Case, facts: Sequence[Fact], name: str) -> list[list[str]]:
    """As `prompts_about_twins`, for the objective `name`. Raises `UserError` if a relation has no twins."""
    others = prompts_about_twins(case, facts)
    if not others:
        raise UserError(
            f"the objective {name!r} needs twins of every relation that {case.name!r} forgets; "
            "add them under `twins` in the case file, or use another objective."
        )
    return others


def twin_outputs(
    model: Model, case: Case, turns: Sequence[Sequence[Fact]], memories: Sequence[TeacherOutputs], name: str
) -> list[Tensor]:
    """Original-model logits with twins substituted for the forget subjects, averaged over twins.

    One tensor `[n, vocabulary]` per batch, at its `n` labels.

    Raises:
        UserError: a forgotten relation has no twins.
    """
    return [_mean_logits(model, case, facts, m.batch.labels, name) for facts, m in zip(turns, memories, strict=True)]


def _mean_logits(model: Model, case: Case, facts: Sequence[Fact], labels: Tensor, name: str) -> Tensor:
    answers = [f.answer for f in facts]
    row, at = (labels >= 0).nonzero(as_tuple=True)
    every = []
    for prompts in twin_prompts(case, facts, name):
        scores = logits(model, encode(model, prompts, answers))
        every.append(scores[row, at - labels.shape[1]])  # counted from the right, where answers end
    return torch.stack(every).mean(0)
