"""Cross-entropy unlearning (CE-U): Yang 2025, arXiv:2503.01224."""

from __future__ import annotations

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from ..._util.errors import UserError
from .base import ForgetBatch, Objective


def ceu(scores: Tensor, labels: Tensor, *, skip: int = 0) -> Tensor:
    """Cross-entropy against the model's own distribution without the answer, in nats per token.

    CE-U, Yang 2025, arXiv:2503.01224. `scores`: logits `[row, keep, vocabulary]`. `labels`: `[row, keep]`, -100 where
    no token is scored. The first `skip` labels of each row do not count. The target gets no gradient.

    Raises:
        UserError: `skip` leaves no label.
    """
    asked = labels >= 0
    asked = asked & (asked.cumsum(-1) > skip)
    if not asked.any():
        raise UserError(f"skip = {skip} leaves no token of these answers to unlearn; give a smaller skip, 0 or more.")
    target = scores[asked].detach().scatter(-1, labels[asked][:, None], -torch.inf).softmax(-1)
    return -(target * scores[asked].log_softmax(-1)).sum(-1).mean()


class Ceu(Objective):
    """`ceu` on the answers' decisive tokens. `skip` is 0: short answers have only one or two of these."""

    skip: NonNegativeInt = 0

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return ceu(asked.logits, asked.labels, skip=self.skip)
