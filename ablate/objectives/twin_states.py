"""Hidden states pulled to the twins'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...knowledge import Case, Fact
from ...model import encode
from ...model.run.states import label_states
from ...model.train.distill import TeacherOutputs
from ..training.twins import twin_prompts
from .base import ForgetBatch
from .behind import Behind

if TYPE_CHECKING:
    from ...model import Model


def twin_states(states: Tensor, asked: Tensor, own: Tensor, twins: Tensor) -> Tensor:
    """Squared distance of hidden states from the twins', over that of the original's: 1 at first, 0 when there.

    LOKA's own, after representation misdirection: the target is not noise, but what the original has in mind of a
    subject it never heard of. `states`, `own`, `twins`: `[row, position, width]`, of the model, of the original about
    the fact's subject and about twins; `asked`: bool `[row, position]`. Summed over all before they are divided.
    """
    far = ((states - twins)[asked] ** 2).sum()
    return far / ((own - twins)[asked] ** 2).sum()


class TwinStates(Behind):
    """`twin_states` behind a layer, where the answers' decisive tokens are predicted.

    The target is the original's mean over four twins put in the subject's place. `layer`: see `Behind`. The loss has no
    unit, so that `alpha` may have to differ.
    """

    @torch.no_grad()
    def prepare_targets(
        self, model: Model, case: Case, turns: Sequence[Sequence[Fact]], memories: Sequence[TeacherOutputs]
    ) -> list[TeacherOutputs]:
        """With the states of both. Raises `UserError` for a case without twins of a forgotten relation."""
        out = []
        for facts, memory in zip(turns, memories, strict=True):
            others = twin_prompts(case, facts, "twin_states")
            own, answers = label_states(model, memory.batch, self.behind), [f.answer for f in facts]
            theirs = [_like(own, label_states(model, encode(model, o, answers), self.behind)) for o in others]
            out.append(replace(memory, states=torch.stack([own, torch.stack(theirs).mean(0)], 2)))
        return out

    def __call__(self, asked: ForgetBatch) -> Tensor:
        kept = asked.memory.states
        assert kept is not None, "`prepare_targets` adds the states"
        return twin_states(self.states(asked), asked.labels >= 0, kept[:, :, 0], kept[:, :, 1])


def _like(own: Tensor, states: Tensor) -> Tensor:
    """States with as many positions as `own`, `[row, keep, width]`, aligned on the right; what lacks is not moved."""
    keep = own.shape[1]
    return torch.cat([own[:, : max(keep - states.shape[1], 0)], states[:, -keep:]], 1)
