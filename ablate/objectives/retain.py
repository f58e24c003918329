"""The papers' retain terms. `tune` itself uses a divergence on the likeliest tokens, see `model.train.distill`."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div

from .answers import asked_logprobs
from .conventions import STATED, peers


def likelihood(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of the labels, in nats per token.

    `scores`: logits `[..., vocabulary]`; `labels`: `[...]`, -100 where no token is scored.
    """
    return -asked_logprobs(scores, labels).mean()


def retain_divergence(scores: Tensor, labels: Tensor, original: Tensor, *, convention: str = STATED) -> Tensor:
    """Mean Kullback-Leibler divergence from the original to the model, in nats per label.

    `scores`, `original`: logits `[..., vocabulary]` of the model and of the original; `labels`: `[...]`, -100
    where no token is scored. `convention="open-unlearning"` averages over every position, prompt and padding included.

    Raises:
        UserError: an unknown convention.
    """
    if not peers(convention):
        scores, original = scores[labels >= 0], original[labels >= 0]
    logp, target = (x.flatten(0, -2).log_softmax(-1) for x in (scores, original))
    return kl_div(logp, target, reduction="batchmean", log_target=True)
