"""Gradient difference (GradDiff): Liu et al. 2022, arXiv:2203.12817; by that name in TOFU, arXiv:2401.06121."""

from __future__ import annotations

from torch import Tensor

from .ascent import ascent
from .base import ForgetBatch, Objective


def difference(forget: Tensor, retain: Tensor, *, gamma: float = 1.0, alpha: float = 1.0) -> Tensor:
    """A forget term and a retain term, weighed: `gamma * forget + alpha * retain`.

    Liu et al. 2022, arXiv:2203.12817. Both are scalars, in nats a token: `ascent` of the forget answers, and
    `likelihood` or `retain_divergence` on what is kept. The other objectives share this sum.
    """
    return gamma * forget + alpha * retain


class Difference(Objective):
    """Ascent without a floor, held back by the retain term alone.

    `tune` adds the retain term, with its weight `alpha`: the divergence from the original, since a likelihood
    would teach the facts which the model is to stay uncertain of.
    """

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return ascent(asked.logits, asked.labels)
