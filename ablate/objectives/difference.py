"""Gradient difference (GradDiff): Liu et al. 2022, arXiv:2203.12817; by that name in TOFU, arXiv:2401.06121."""

from __future__ import annotations

from torch import Tensor

from .ascent import ascent
from .base import ForgetBatch, Objective


def difference(forget: Tensor, retain: Tensor, *, gamma: float = 1.0, alpha: float = 1.0) -> Tensor:
    """The weighted sum of a forget term and a retain term: `gamma * forget + alpha * retain`.

    Liu et al. 2022, arXiv:2203.12817. Both are scalars, in nats per token: `ascent` on the forget answers, and
    `likelihood` or `retain_divergence` on the facts to keep. The other objectives share this sum.
    """
    return gamma * forget + alpha * retain


class Difference(Objective):
    """Ascent without a floor; only the retain term limits it.

    `tune` adds the retain term, with `retain_weight`. It is the divergence from the original, since a likelihood would
    teach the facts on which the model must stay uncertain.
    """

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return ascent(asked.logits, asked.labels)
