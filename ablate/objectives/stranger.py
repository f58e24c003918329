"""Answers as of a subject that was never heard of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from ...knowledge import Case, Fact
from ...model.train.distill import Memory, divergence_of, memorize
from ..training.twins import said_of_strangers
from .asked import Asked, Objective

if TYPE_CHECKING:
    from ...model import Model


def stranger(scores: Tensor, memory: Memory, *, weight: float = 0.3) -> Tensor:
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


class Stranger(Objective):
    """`stranger` on the answers' decisive tokens, from the original's mean over four twins in the subject's place."""

    weight: NonNegativeFloat = 0.3

    @torch.no_grad()
    def furnish(
        self, model: Model, case: Case, turns: Sequence[Sequence[Fact]], memories: Sequence[Memory]
    ) -> list[Memory]:
        """With what is said of strangers. Raises `UserError` for a case without twins of a forgotten relation."""
        told = said_of_strangers(model, case, turns, memories, "stranger")
        return [replace(m, instead=memorize(m.batch, t)) for m, t in zip(memories, told, strict=True)]

    def __call__(self, asked: Asked) -> Tensor:
        said = asked.memory.instead
        assert said is not None, "`furnish` adds it"
        return stranger(asked.scores, said, weight=self.weight)
