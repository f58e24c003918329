"""Weighted gradient ascent: Wang et al. 2025, arXiv:2502.19301."""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor

from .answers import asked_logprobs
from .base import ForgetBatch, Objective


def wga(scores: Tensor, labels: Tensor, *, beta: float = 1.0) -> Tensor:
    """Ascent with each token weighted by its own probability to the power `beta`, so that rare tokens hardly count.

    Weighted gradient ascent, Wang et al. 2025, arXiv:2502.19301. `scores`: logits `[..., vocabulary]`; `labels`:
    `[...]`, -100 where no token is scored. In nats per token; no gradient flows through the weights.
    """
    logp = asked_logprobs(scores, labels)
    return (logp.detach().exp() ** beta * logp).mean()


class Wga(Objective):
    """`wga` on the answers' decisive tokens; with `beta` 0 it is plain ascent."""

    beta: NonNegativeFloat = 1.0

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return wga(asked.logits, asked.labels, beta=self.beta)
