"""Simulated relearning, so that an edit also holds at the weights that relearning would reach.

First-order, after sharpness-aware unlearning (Fan et al. 2025, arXiv:2502.05374) and tamper-resistant training
(Tamirisa et al. 2024, arXiv:2408.00761): all weights move along the gradient that brings half of the forget facts
back, and the forget objective is applied to the other half there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import UserError
from ..._util.records import check_types
from ...model import Batch, Trainable, logits, token_logprobs, unfrozen
from ...model.train.distill import TeacherOutputs

if TYPE_CHECKING:
    from ...model import Model


@dataclass(frozen=True)
class SimulatedRelearning:
    """Relearning inside a training: `steps` of normalised gradient descent, each `radius` long over all weights.

    The displacement is recomputed, with new halves, every `every` training steps, from step `start` on.
    It is not an attack of `verify`: those use other optimizers, other templates and other folds.

    Raises:
        UserError: a number out of range.
    """

    start: int = 10
    every: int = 4
    steps: int = 2
    radius: float = 0.1

    def __post_init__(self) -> None:
        check_types(self, "simulated relearning")
        if not (self.start >= 0 and self.every >= 1 and self.steps >= 1 and 0 < self.radius < math.inf):
            raise UserError(
                f"{self} cannot be simulated; give every and steps of 1 or more, a start of 0 or more, and a radius "
                "above 0."
            )


class Simulation:
    """The current displacement, and the half of the facts that the objective is applied to there.

    Memory: two copies of the weights.

    Args:
        forget: the original's outputs without the answers; one batch per working template, one row per fact.
    """

    def __init__(
        self,
        model: Model,
        trainable: Trainable,
        forget: list[TeacherOutputs],
        settings: SimulatedRelearning,
        *,
        seed: int,
    ) -> None:
        self.model, self.trainable, self.forget, self.settings = model, trainable, forget, settings
        self.random = random.Random(f"{seed}/relapse")
        self.base = {name: p.detach().clone() for name, p in model.parameters.items()}
        self.displacement: dict[str, Tensor] = {}
        self.held_out: list[int] = []

    def renew(self) -> None:
        """Draw halves, relearn one of them from the current weights, and store how far that moves the weights."""
        n = len(self.forget[0].batch.ids)
        order = self.random.sample(range(n), n)
        half = (len(order) + 1) // 2
        taught, self.held_out = order[:half], order[half:]
        self.displacement = {}  # frees the memory of the last displacement for the gradients
        try:
            with self.trainable.paused():
                for _ in range(self.settings.steps):
                    self._relearn(taught)
            self.displacement = {name: p.detach().clone() for name, p in self.model.parameters.items()}
        finally:  # nothing else stores the weights outside the slices
            self._restore()
        for name, p in self.model.parameters.items():
            self.displacement[name] -= p.detach()

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Within the context, the weights are as relearning would leave them."""
        with torch.no_grad():
            for name, p in self.model.parameters.items():
                p.add_(self.displacement[name])
        try:
            yield
        finally:
            self._restore()

    def held_out_batch(self) -> TeacherOutputs:
        """The half of the facts that was not relearned, in one of the templates."""
        return self.random.choice(self.forget).rows(self.held_out)

    @torch.no_grad()
    def _restore(self) -> None:
        """Restore the weights from before `in_force`."""
        for name, p in self.model.parameters.items():
            p.copy_(self.base[name])
        self.trainable.sync()

    def _relearn(self, rows: list[int]) -> None:
        """One step of length `radius` down the loss on the answers of these facts."""
        relearning_step_(self.model, self.random.choice(self.forget).rows(rows).batch, self.settings.radius)


def relearning_step_(model: Model, batch: Batch, radius: float) -> None:
    """Take a step of length `radius` with all weights, down the loss on a batch's labels. Call it inside `scratch`."""
    with unfrozen(model) as parameters, torch.enable_grad():
        loss = -token_logprobs(logits(model, batch), batch.labels).sum() / (batch.labels >= 0).sum()
        loss.backward()
        grads = [p.grad for p in parameters if p.grad is not None]
        length = torch.stack([g.norm() for g in grads]).norm()
        with torch.no_grad():
            for p in parameters:
                if p.grad is not None:
                    p.add_(p.grad * (-radius / length))
