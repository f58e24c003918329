"""Primal-dual unlearning (PDU): Entesari et al. 2025, arXiv:2506.05314."""

from __future__ import annotations

from torch import Tensor

from .base import ForgetBatch, Objective


def pdu(scores: Tensor, labels: Tensor) -> Tensor:
    """Logit-margin flattening: the mean of `(max logit - mean logit)^2` over the labels' positions, in squared logits.

    Constrained entropic unlearning, Entesari et al. 2025, arXiv:2506.05314. `scores`: logits `[..., vocabulary]`.
    `labels`: `[...]`, -100 where no token is scored; which tokens they are does not matter. OpenUnlearning does not
    shift the labels against the logits, so its values come from one position later.
    """
    asked = scores[labels >= 0]
    return ((asked.amax(-1) - asked.mean(-1)) ** 2).mean()


class Pdu(Objective):
    """`pdu` on the answers' decisive tokens.

    The paper's retain constraint is `tune`'s retain term; its multiplier is `retain_weight`, which is constant here.
    """

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return pdu(asked.scores, asked.labels[asked.labels >= 0])
