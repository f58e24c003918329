"""UNDIAL: Dong et al. 2024, arXiv:2402.10052."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ...model.train.distill import TeacherOutputs, divergence_of, record_outputs
from .base import ForgetBatch, Objective
from .conventions import STATED, peers

if TYPE_CHECKING:
    from ...model import Model


def undial(scores: Tensor, labels: Tensor, original: Tensor, *, beta: float = 10.0, convention: str = STATED) -> Tensor:
    """Cross-entropy against the original's distribution with the answer's logit lowered by `beta`, in nats a token.

    UNDIAL, Dong et al. 2024, arXiv:2402.10052. `scores`, `original`: logits `[..., vocabulary]` of the model
    and of the original; `labels`: `[...]`, -100 where nothing is asked.
    `convention="open-unlearning"` averages over prompt and padding too, where it lowers the token that
    an index of -100 picks, and so needs a vocabulary of at least 100.

    Raises:
        UserError: an unknown convention.
    """
    vocabulary = scores.shape[-1]
    if peers(convention):
        labels = torch.where(labels < 0, labels + vocabulary, labels)
    asked = labels >= 0
    lowered = torch.full_like(labels[asked][:, None], -beta, dtype=original.dtype)
    teacher = original[asked].scatter_add(-1, labels[asked][:, None], lowered).softmax(-1)
    return -(teacher * scores[asked].log_softmax(-1)).sum(-1).mean()


class Undial(Objective):
    """Distil from the model's own distribution with the answer taken out.

    The limit of `undial` for large `beta`, less the teacher's entropy, which no training changes. The `teacher` is the
    original, or the model as a first edit left it (`follow_up`): where that has removed the answers already, this moves
    nothing by itself, and holds it there when relearning is simulated.
    """

    teacher: Literal["original", "edited"] = "original"

    def begun(self, model: Model, memories: Sequence[TeacherOutputs]) -> list[TeacherOutputs]:
        """With the edited model's distributions in the original's places."""
        if self.teacher == "original":
            return list(memories)
        return [replace(record_outputs(model, m.batch, without_answer=True), answers=m.answers) for m in memories]

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return divergence_of(asked.scores, asked.memory)
