"""An alternative continuation: "Who's Harry Potter?", Eldan & Russinovich 2023, arXiv:2310.02238."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from ...knowledge import Case, Item
from ...model import logits, scratch, unfrozen
from ...model.train.distill import TeacherOutputs, divergence_of, outputs_from_logits
from ..training.twins import twin_outputs
from .base import ForgetBatch, Objective
from .retain import likelihood

if TYPE_CHECKING:
    from ...model import Model


def alternative(generic: Tensor, reinforced: Tensor, original: Tensor, *, alpha: float = 5.0) -> Tensor:
    """Estimated logits of a model that never met the subject, all of shape `[..., vocabulary]`.

    Eldan & Russinovich 2023, arXiv:2310.02238: `generic - alpha * relu(reinforced - original)`. `generic`: the
    original's logits with generic terms in the subject's place. `reinforced`: those of the original after further
    training on the forget facts. `original`: those of the original.
    """
    return generic - alpha * torch.relu(reinforced - original)


class Alternative(Objective):
    """Distil from `alternative` on the answers' decisive tokens.

    The generic terms are four twins, whose logits are averaged. The reinforced model is trained on the forget facts:
    all its weights, `steps` steps of AdamW at learning rate `lr`. The paper's label is the likeliest token of the
    alternative; here the whole distribution is the teacher. Memory: four copies of the weights during the preparation.
    """

    alpha: NonNegativeFloat = 5.0
    steps: PositiveInt = 10
    lr: PositiveFloat = 1e-4

    @torch.no_grad()
    def prepare_targets(
        self, model: Model, case: Case, turns: Sequence[Sequence[Item]], memories: Sequence[TeacherOutputs]
    ) -> list[TeacherOutputs]:
        """The batches with the alternative added. Raises `UserError` if a forgotten relation has no twins."""
        generic = twin_outputs(model, case, turns, memories, "alternative")
        original = [_label_logits(model, m) for m in memories]
        with scratch(model):
            self._reinforce_(model, memories)
            reinforced = [_label_logits(model, m) for m in memories]
        every = zip(memories, generic, reinforced, original, strict=True)
        return [
            replace(m, alternative=outputs_from_logits(m.batch, alternative(g, r, o, alpha=self.alpha)))
            for m, g, r, o in every
        ]

    def _reinforce_(self, model: Model, memories: Sequence[TeacherOutputs]) -> None:
        with unfrozen(model) as parameters, torch.enable_grad():
            optimizer = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=0.0)
            for step in range(self.steps):
                batch = memories[step % len(memories)].batch
                likelihood(logits(model, batch), batch.labels).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

    def __call__(self, asked: ForgetBatch) -> Tensor:
        assert asked.memory.alternative is not None, "`prepare_targets` adds the alternative"
        return divergence_of(asked.scores, asked.memory.alternative)


def _label_logits(model: Model, memory: TeacherOutputs) -> Tensor:
    """Logits `[n, vocabulary]` at a batch's labels."""
    return logits(model, memory.batch)[memory.batch.labels >= 0]
