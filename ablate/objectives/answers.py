"""Log-probabilities of answers, by token and by row."""

from __future__ import annotations

from torch import Tensor

from ...model import token_logprobs


def asked_logprobs(scores: Tensor, labels: Tensor) -> Tensor:
    """Log-probability `[n, 1]` of the `n` labels.

    `scores`: logits `[..., vocabulary]`; `labels`: `[...]`, the token to predict, -100 for none.
    """
    asked = labels >= 0
    return scores[asked].log_softmax(-1).gather(-1, labels[asked][:, None])


def log_ratio(scores: Tensor, labels: Tensor, original: Tensor) -> Tensor:
    """Log-ratio of each row's whole answer, the model's probability over the original's, in nats, `[row]`.

    `scores`: logits `[row, keep, vocabulary]`; `labels`: `[row, keep]`, -100 where no token is scored;
    `original`: `[row, keep]`, the labels' log-probabilities by the original, 0 where none is scored.
    """
    return (token_logprobs(scores, labels) - original).sum(-1)
