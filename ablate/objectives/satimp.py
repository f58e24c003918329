"""Weights by saturation and importance: Yang et al. 2025, arXiv:2505.11953."""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor

from .answers import asked_logprobs
from .base import ForgetBatch, Objective


def satimp(scores: Tensor, labels: Tensor, *, beta1: float = 5.0, beta2: float = 1.0) -> Tensor:
    """Ascent with each token weighted by `p^beta1 (1 - p)^beta2`: little for forgotten tokens and for certain ones.

    SatImp, Yang et al. 2025, arXiv:2505.11953: the first factor is saturation, the second importance. `scores`:
    logits `[..., vocabulary]`; `labels`: `[...]`, -100 where no token is scored. In nats per token. No gradient
    flows through the weights.
    """
    logp = asked_logprobs(scores, labels)
    p = logp.detach().exp()
    return (p**beta1 * (1 - p) ** beta2 * logp).mean()


class SatImp(Objective):
    """`satimp` on the answers' decisive tokens.

    A token that the model is sure of has a weight of `(1 - p)^beta2`, almost zero. For well-known facts, lower `beta2`.
    """

    beta1: NonNegativeFloat = 5.0
    beta2: NonNegativeFloat = 1.0

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return satimp(asked.logits, asked.labels, beta1=self.beta1, beta2=self.beta2)
