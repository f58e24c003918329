"""Answers as likely as those about a subject that the model was never taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from ...knowledge import Case, Item
from ...model.train.distill import TeacherOutputs, divergence_of, outputs_from_logits
from ..training.twins import twin_outputs
from .base import ForgetBatch, Objective

if TYPE_CHECKING:
    from ...model import Model


def twin_distribution(scores: Tensor, memory: TeacherOutputs, *, weight: float = 0.3) -> Tensor:
    """Divergence from the original's outputs about twins, plus half the squared log-distance of the answer's tokens.

    An objective of LOKA. The target is not a rare answer, but one exactly as likely as for a subject that the model was
    never taught: a likelier or a rarer one would show that something was erased. The divergence alone hardly changes
    for an answer that is rare among all words but still far likelier than others of its kind. The square does.

    Args:
        scores: logits `[n, vocabulary]` at the labels.
        memory: the original's outputs there about twins.
        weight: the weight of the square, which is in nats squared.
    """
    labels = memory.batch.labels
    logprobs = scores.float().log_softmax(-1).gather(-1, labels[labels >= 0][:, None])[:, 0]
    return divergence_of(scores, memory) + weight * ((logprobs - memory.answers) ** 2).mean() / 2


class TwinDistribution(Objective):
    """`twin_distribution` on the answers' decisive tokens; the target is the original's mean over four twins."""

    weight: NonNegativeFloat = 0.3

    @torch.no_grad()
    def prepare_targets(
        self, model: Model, case: Case, turns: Sequence[Sequence[Item]], memories: Sequence[TeacherOutputs]
    ) -> list[TeacherOutputs]:
        """The batches with the outputs about twins added. Raises `UserError` if a forgotten relation has no twins."""
        outputs = twin_outputs(model, case, turns, memories, "twin_distribution")
        both = zip(memories, outputs, strict=True)
        return [replace(m, alternative=outputs_from_logits(m.batch, scores)) for m, scores in both]

    def __call__(self, asked: ForgetBatch) -> Tensor:
        target = asked.memory.alternative
        assert target is not None, "`prepare_targets` adds it"
        return twin_distribution(asked.scores, target, weight=self.weight)
