"""Cross-entropy unlearning (CE-U): Yang 2025, arXiv:2503.01224."""

from __future__ import annotations

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from ..._util.errors import UserError
from .base import ForgetBatch, Objective


def ceu(scores: Tensor, labels: Tensor, *, skip: int = 0) -> Tensor:
    """Cross-entropy against the model's own present distribution with the answer taken out, in nats a token.

    CE-U, Yang 2025, arXiv:2503.01224. `scores`: logits `[row, keep, vocabulary]`; `labels`: `[row, keep]`, -100
    where nothing is asked; the first `skip` labels of each row are left alone. The target gets no gradient.

    Raises:
        UserError: `skip` leaves no label.
    """
    asked = labels >= 0
    kept = asked & (asked.cumsum(-1) > skip)
    if not kept.any():
        raise UserError(f"skip = {skip} leaves no token of these answers to unlearn; give a smaller skip, 0 at least.")
    target = scores[kept].detach().scatter(-1, labels[kept][:, None], -torch.inf).softmax(-1)
    return -(target * scores[kept].log_softmax(-1)).sum(-1).mean()


class Ceu(Objective):
    """`ceu` on the answers' decisive tokens. `skip` is 0, since short answers have one such token or two."""

    skip: NonNegativeInt = 0

    def __call__(self, asked: ForgetBatch) -> Tensor:
        return ceu(asked.logits, asked.labels, skip=self.skip)
