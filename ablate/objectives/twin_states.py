"""Hidden states pulled towards those of twins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...knowledge import Case, Item
from ...model import encode
from ...model.run.states import label_states
from ...model.train.distill import TeacherOutputs
from ..training.twins import twin_prompts
from .at_block import AtBlock
from .base import ForgetBatch

if TYPE_CHECKING:
    from ...model import Model


def twin_states(states: Tensor, asked: Tensor, own: Tensor, twins: Tensor) -> Tensor:
    """Squared distance of hidden states from the twins', relative to the original's: 1 at first, 0 at the target.

    An objective of LOKA, after representation misdirection. The target is not noise, but the original's states for a
    subject that it was never taught. `states`: `[row, position, width]`, of the trained model. `own`, `twins`: the same
    shape, of the original about the fact's subject and about twins. `asked`: bool `[row, position]`. Both distances are
    summed over all positions before the division.
    """
    far = ((states - twins)[asked] ** 2).sum()
    return far / ((own - twins)[asked] ** 2).sum()


class TwinStates(AtBlock):
    """`twin_states` after a block, where the answers' decisive tokens are predicted.

    The target is the original's mean over four twins in the subject's place. `layer`: see `AtBlock`. The loss has no
    unit, so `retain_weight` may have to differ.
    """

    @torch.no_grad()
    def prepare_targets(
        self, model: Model, case: Case, turns: Sequence[Sequence[Item]], memories: Sequence[TeacherOutputs]
    ) -> list[TeacherOutputs]:
        """The batches with both kinds of states added. Raises `UserError` if a forgotten relation has no twins."""
        out = []
        for facts, memory in zip(turns, memories, strict=True):
            others = twin_prompts(case, facts, "twin_states")
            own, answers = label_states(model, memory.batch, self.block), [f.answer for f in facts]
            theirs = [_like(own, label_states(model, encode(model, o, answers), self.block)) for o in others]
            out.append(replace(memory, states=torch.stack([own, torch.stack(theirs).mean(0)], 2)))
        return out

    def __call__(self, asked: ForgetBatch) -> Tensor:
        targets = asked.memory.states
        assert targets is not None, "`prepare_targets` adds the states"
        return twin_states(self.states(asked), asked.labels >= 0, targets[:, :, 0], targets[:, :, 1])


def _like(own: Tensor, states: Tensor) -> Tensor:
    """States with as many positions as `own`, `[row, keep, width]`, aligned on the right; `own` fills the gaps."""
    keep = own.shape[1]
    return torch.cat([own[:, : max(keep - states.shape[1], 0)], states[:, -keep:]], 1)
