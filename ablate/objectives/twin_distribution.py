"""Answers as of a subject that was never heard of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from ...knowledge import Case, Fact
from ...model.train.distill import TeacherOutputs, divergence_of, outputs_from_logits
from ..training.twins import twin_outputs
from .base import ForgetBatch, Objective

if TYPE_CHECKING:
    from ...model import Model


def twin_distribution(scores: Tensor, memory: TeacherOutputs, *, weight: float = 0.3) -> Tensor:
    """Divergence from what is said of strangers, and half the squared distance of the answer's tokens from there.

    LOKA's own. What is aimed at is not that the answer be rare, but that it be as likely as for a subject which was
    never heard of, and no rarer: both would tell. The divergence alone hardly notices an answer that has become rare
    among all words and is still far likelier than others of its kind; the square does, in nats.

    Args:
        scores: logits `[n, vocabulary]` where something is asked.
        memory: what the original says there of strangers.
        weight: of the square.
    """
    labels = memory.batch.labels
    own = scores.float().log_softmax(-1).gather(-1, labels[labels >= 0][:, None])[:, 0]
    return divergence_of(scores, memory) + weight * ((own - memory.answers) ** 2).mean() / 2


class TwinDistribution(Objective):
    """`twin_distribution` on the answers' decisive tokens, towards the original's mean over four twins."""

    weight: NonNegativeFloat = 0.3

    @torch.no_grad()
    def prepare_targets(
        self, model: Model, case: Case, turns: Sequence[Sequence[Fact]], memories: Sequence[TeacherOutputs]
    ) -> list[TeacherOutputs]:
        """With what is said of strangers. Raises `UserError` for a case without twins of a forgotten relation."""
        told = twin_outputs(model, case, turns, memories, "twin_distribution")
        return [replace(m, alternative=outputs_from_logits(m.batch, t)) for m, t in zip(memories, told, strict=True)]

    def __call__(self, asked: ForgetBatch) -> Tensor:
        said = asked.memory.alternative
        assert said is not None, "`prepare_targets` adds it"
        return twin_distribution(asked.scores, said, weight=self.weight)
