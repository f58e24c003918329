"""Negative preference optimization: Zhang et al. 2024, arXiv:2404.05868."""

from __future__ import annotations

from pydantic import PositiveFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from .answers import log_ratio
from .base import ForgetBatch, Objective


def npo(scores: Tensor, labels: Tensor, original: Tensor, *, beta: float = 0.1) -> Tensor:
    """Ascent on whole answers that fades as they become rarer than in the original.

    Negative preference optimization, Zhang et al. 2024, arXiv:2404.05868: the mean over rows of
    `-2/beta log sigmoid(-beta ratio)`. `scores`: logits `[row, keep, vocabulary]`; `labels`: `[row, keep]`, -100
    where no token is scored; `original`: `[row, keep]`, the labels' log-probabilities by the original, 0 elsewhere.
    """
    return -2 / beta * logsigmoid(-beta * log_ratio(scores, labels, original)).mean()


class Npo(Objective):
    """`npo` on the answers' decisive tokens. The larger `beta`, the sooner the push fades."""

    beta: PositiveFloat = 0.1

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return npo(asked.logits, asked.labels, asked.memory.reference, beta=self.beta)
