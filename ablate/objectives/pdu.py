"""Primal-dual unlearning (PDU): Entesari et al. 2025, arXiv:2506.05314."""

from __future__ import annotations

from torch import Tensor

from .base import ForgetBatch, Objective


def pdu(scores: Tensor, labels: Tensor) -> Tensor:
    """Logit-margin flattening: the mean of `(max logit - mean logit)^2` over what is asked, in squared logits.

    Constrained entropic unlearning, Entesari et al. 2025, arXiv:2506.05314. `scores`: logits `[..., vocabulary]`;
    `labels`: `[...]`, -100 where nothing is asked; which tokens they are plays no part.
    OpenUnlearning's values come of labels that were not shifted against the logits, a position late.
    """
    asked = scores[labels >= 0]
    return ((asked.amax(-1) - asked.mean(-1)) ** 2).mean()


class Pdu(Objective):
    """`pdu` where the answers' decisive tokens are asked for.

    The paper's retain constraint is `tune`'s retain term; its multiplier is `alpha`, held fixed.
    """

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return pdu(asked.scores, asked.labels[asked.labels >= 0])
