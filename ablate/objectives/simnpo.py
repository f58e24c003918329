"""SimNPO: Fan et al. 2024, arXiv:2410.07163."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...model import token_logprobs
from .base import ForgetBatch, Objective


def simnpo(scores: Tensor, labels: Tensor, *, beta: float = 4.5, delta: float = 0.0) -> Tensor:
    """`npo` without the original: the push fades with the answer's own loss per token, beyond `delta` nats.

    SimNPO, Fan et al. 2024, arXiv:2410.07163: the mean over rows of `-2/beta log sigmoid(beta (loss - delta))`.
    `scores`: logits `[row, keep, vocabulary]`; `labels`: `[row, keep]`, -100 where no token is scored,
    at least one token scored in each row.
    """
    loss = -token_logprobs(scores, labels).sum(-1) / (labels >= 0).sum(-1)
    return -2 / beta * logsigmoid(beta * (loss - delta)).mean()


class SimNpo(Objective):
    """`simnpo` on the answers' decisive tokens. `delta`: the margin in nats per token (the paper's gamma)."""

    beta: PositiveFloat = 4.5
    delta: NonNegativeFloat = 0.0

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return simnpo(asked.logits, asked.labels, beta=self.beta, delta=self.delta)
