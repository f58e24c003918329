"""What the original has to say of subjects that it never heard of, where it is asked about those to be forgotten."""

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

STRANGERS = 4


def prompts_about_twins(case: Case, facts: Sequence[Fact]) -> list[list[str]]:
    """The facts' prompts about twins instead, `STRANGERS` times; none where a relation has no twins."""
    twin_prompts = {
        r: [t.subject for t in case.twins.working if t.relation == r][:STRANGERS] for r in {f.relation for f in facts}
    }
    if not all(twin_prompts.values()):
        return []
    return [
        [f.prompt.replace(f.subject, twin_prompts[f.relation][i % len(twin_prompts[f.relation])]) for f in facts]
        for i in range(STRANGERS)
    ]


def twin_prompts(case: Case, facts: Sequence[Fact], name: str) -> list[list[str]]:
    """The prompts about twins instead. Raises `UserError` where there are none."""
    others = prompts_about_twins(case, facts)
    if not others:
        raise UserError(
            f"the objective {name!r} needs twins of every relation that {case.name!r} forgets; "
            "add them under `twins` in the case file, or take another objective."
        )
    return others


def twin_outputs(
    model: Model, case: Case, turns: Sequence[Sequence[Fact]], memories: Sequence[TeacherOutputs], name: str
) -> list[Tensor]:
    """Of each batch, mean logits `[n, vocabulary]` where its labels are asked, with twins in the subjects' places.

    Raises:
        UserError: a case without twins of a forgotten relation.
    """
    return [_said(model, case, facts, m.batch.labels, name) for facts, m in zip(turns, memories, strict=True)]


def _said(model: Model, case: Case, facts: Sequence[Fact], labels: Tensor, name: str) -> Tensor:
    answers = [f.answer for f in facts]
    row, at = (labels >= 0).nonzero(as_tuple=True)
    told = []
    for prompts in twin_prompts(case, facts, name):
        scores = logits(model, encode(model, prompts, answers))
        told.append(scores[row, at - labels.shape[1]])  # counted from the right, where answers end
    return torch.stack(told).mean(0)
