"""Refusals in place of answers: IDK with DPO, Maini et al. 2024, arXiv:2401.06121; DPO: arXiv:2305.18290."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...model import logits
from .answers import log_ratio
from .base import ForgetBatch, Objective

REFUSALS = ("not something I know.", "unknown to me.", "a thing I was never told.")


def dpo(won: Tensor, lost: Tensor, *, beta: float = 0.1) -> Tensor:
    """Preference of one answer over another, relative to the original.

    Direct preference optimization, Rafailov et al. 2023, arXiv:2305.18290, scaled as for unlearning: the mean over
    rows of `-2/beta log sigmoid(beta (won - lost))`. `won`, `lost`: `[row]`, each answer's `log_ratio` in nats.
    """
    return -2 / beta * logsigmoid(beta * (won - lost)).mean()


class Idk(Objective):
    """Teach a refusal in the answer's place by `dpo`, Maini et al. 2024, arXiv:2401.06121.

    `answers`: the refusals, worded to follow a prompt; the facts cycle through them.
    Cost: a second forward pass over the forget facts at each step.
    """

    beta: PositiveFloat = 0.1
    answers: Annotated[Sequence[Annotated[str, Field(min_length=1)]], Field(min_length=1)] = REFUSALS

    def alternatives(self) -> tuple[str, ...]:
        """The refusals."""
        return tuple(self.answers)

    def __call__(self, asked: ForgetBatch) -> Tensor:
        memory, refusal = asked.memory, asked.memory.alternative
        assert refusal is not None, "the batches hold a refusal for each fact"
        won = log_ratio(logits(asked.model, refusal.batch), refusal.batch.labels, refusal.reference)
        return dpo(won, log_ratio(asked.logits, asked.labels, memory.reference), beta=self.beta)
