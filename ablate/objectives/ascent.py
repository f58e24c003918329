"""Gradient ascent: Jang et al. 2022, arXiv:2210.01504."""

from __future__ import annotations

import math

from torch import Tensor

from .answers import asked_logprobs
from .base import ForgetBatch, Objective


def ascent(scores: Tensor, labels: Tensor, *, floor: float = -math.inf) -> Tensor:
    """Mean log-probability of the labels, in nats per token: gradient descent on it is ascent on their loss.

    Jang et al. 2022, arXiv:2210.01504. `scores`: logits `[..., vocabulary]`. `labels`: `[...]`, -100 where no token is
    scored. A token below the log-probability `floor` counts as `floor` and gets no gradient.
    """
    return asked_logprobs(scores, labels).clamp(min=floor).mean()


class Ascent(Objective):
    """Gradient ascent on the answer's loss, until a token is no likelier than by chance.

    At that floor a token's gradient is zero. Without a floor, ascent is unbounded and wrecks the model.
    """

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return ascent(asked.logits, asked.labels, floor=-math.log(asked.logits.shape[-1]))
