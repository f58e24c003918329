"""Fine-tuning within a frozen budget, used by the attacks that train."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from .._util.errors import UserError
from .._util.records import check_types
from ..knowledge import Item
from ..model import Batch, chunks, encode, logits, low_rank, token_logprobs, unfrozen
from ..model.run.onednn import bfloat16_products

if TYPE_CHECKING:
    from ..model import Model

MOMENTUM = 0.9
LABELS = 256
FORWARD_BACKWARD = 3  # cost of one training row, in forward passes
Optimizer = Literal["adamw", "sgd", "lora"]


@dataclass(frozen=True)
class Budget:
    """What an attack may spend. An audit finds it on a deliberately shallow edit and then freezes it.

    `steps`: optimizer steps, each over the whole training set. `lr`: the learning rate. `measured`: the steps after
    which the held-out facts are asked; the last step is always among them. `rates`: further learning rates to try.

    Raises:
        UserError: no steps, or a learning rate that no training can use.
    """

    steps: int = 8
    lr: float = 1e-5
    measured: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_types(self, "a budget")
        if self.steps < 1 or not all(0 <= lr < math.inf for lr in (self.lr, *self.rates)):
            raise UserError(f"{self} trains nothing; give 1 or more steps and learning rates of 0 or above.")

    def at(self, steps: int) -> Budget:
        """The same attack, ended earlier and measured at its end."""
        return replace(self, steps=steps, measured=tuple(m for m in self.measured if m <= steps))

    @property
    def measured_steps(self) -> tuple[int, ...]:
        """Every step after which the answers are asked, in order, the last one included."""
        return tuple(sorted({self.steps, *self.measured} & set(range(1, self.steps + 1))))


@dataclass(frozen=True)
class Step:
    """One finished training step. `before`: the labels' probability before it, a geometric mean over tokens."""

    number: int
    before: float


def fine_tune_on_facts(
    model: Model, facts: Sequence[Item], budget: Budget, *, by: Optimizer = "adamw", beside: Sequence[Batch] = ()
) -> Iterator[Step]:
    """Train on facts, with the loss on the answers alone; yields after each step. Call it inside `scratch`."""
    batch = encode(model, [f.prompt for f in facts], [f.answer for f in facts])
    return fine_tune_steps(model, batch, budget, by=by, beside=beside)


def fine_tune_steps(
    model: Model, batch: Batch, budget: Budget, *, by: Optimizer = "adamw", beside: Sequence[Batch] = ()
) -> Iterator[Step]:
    """Train on a batch's labels; yields after each step. Call it inside `scratch`, except with `lora`.

    Each step uses the gradient of the whole batch, and of those `beside` it; the loss is the sum of the batches' mean
    losses. The gradient is accumulated over parts, so that memory holds the logits of at most `LABELS` positions.
    Training passes use `bfloat16_products`; whatever runs between the steps does not.
    """
    with _optimizer(model, by, budget.lr) as optimizer:
        for number in range(1, budget.steps + 1):
            total, *_ = [_backward_all(model, each) for each in (batch, *beside)]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield Step(number, math.exp(-total))


def _backward_all(model: Model, batch: Batch) -> float:
    """Add the gradient of a batch's mean loss, which is returned."""
    n_labels = int((batch.labels >= 0).sum())
    parts = chunks(len(batch.ids), max(1, LABELS // batch.keep))
    return sum(_backward(model, batch.rows(part), n_labels) for part in parts)


def _backward(model: Model, batch: Batch, n_labels: int) -> float:
    """Add a part's gradient; returns its share of the mean loss over `n_labels` labels."""
    with torch.enable_grad(), bfloat16_products(model):
        loss = -token_logprobs(logits(model, batch), batch.labels).sum() / n_labels
        loss.backward()
    return float(loss.detach())


@contextmanager
def _optimizer(model: Model, by: Optimizer, lr: float) -> Iterator[torch.optim.Optimizer]:
    if by == "lora":
        with low_rank(model) as adapters:
            yield torch.optim.AdamW(adapters.parameters, lr=lr, weight_decay=0.0)
        return
    with unfrozen(model) as parameters:
        if by == "sgd":
            yield torch.optim.SGD(parameters, lr=lr, momentum=MOMENTUM)
        else:
            yield torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, fused=True)
