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
    """Cross-entropy against the original's distribution with the answer's logit lowered by `beta`, in nats per token.

    UNDIAL, Dong et al. 2024, arXiv:2402.10052. `scores`, `original`: logits `[..., vocabulary]` of the model
    and of the original; `labels`: `[...]`, -100 where no token is scored.
    `convention="open-unlearning"` averages over prompt and padding too. There it lowers the token at index -100, so it
    needs a vocabulary of at least 100.

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
    """Distil from the teacher's distribution without the answer.

    This is the limit of `undial` for large `beta`, minus the teacher's entropy, which no training changes. `teacher` is
    the original, or the model after a first edit (`follow_up`). If that edit has removed the answers, this term alone
    moves nothing; with simulated relearning it makes the edit robust.
    """

    teacher: Literal["original", "edited"] = "original"

    def retarget(self, model: Model, memories: Sequence[TeacherOutputs]) -> list[TeacherOutputs]:
        """The batches, with the edited model's distributions if that is the teacher."""
        if self.teacher == "original":
            return list(memories)
        return [replace(record_outputs(model, m.batch, without_answer=True), answers=m.answers) for m in memories]

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return divergence_of(asked.scores, asked.memory)
