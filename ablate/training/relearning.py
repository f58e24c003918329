"""Relearning simulated inside the training, so that an edit also holds where relearning would lead.

First-order, after sharpness-aware unlearning (Fan et al. 2025, arXiv:2502.05374) and tamper-resistant
training (Tamirisa et al. 2024, arXiv:2408.00761): all weights are moved along the gradient that brings
half of the forget facts back, and the forget objective is asked of the other half there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import UserError
from ...model import Batch, Trainable, logits, token_logprobs, unfrozen
from ...model.train.distill import TeacherOutputs

if TYPE_CHECKING:
    from ...model import Model


@dataclass(frozen=True)
class SimulatedRelearning:
    """Simulated relearning: `steps` of normalised gradient descent, each `radius` long over all weights.

    The displacement is found anew, with other halves, every `every` training steps, from step `start` on.
    It is no attack of `verify`: those are other optimizers, other templates and other folds.
    """

    start: int = 10
    every: int = 4
    steps: int = 2
    radius: float = 0.1

    @classmethod
    def of(cls, settings: Mapping[str, float] | None) -> SimulatedRelearning | None:
        """These, by name; `None` is none.

        Raises:
            UserError: no settings of this, or what no training can do.
        """
        if settings is None:
            return None
        names = {f.name for f in fields(cls)}
        if other := sorted(settings.keys() - names):
            raise UserError(f"{other[0]!r} is no setting of relapse; choose of {', '.join(sorted(names))}.")
        out = cls(**settings)  # type: ignore[arg-type]
        if not (out.start >= 0 and out.every >= 1 and out.steps >= 1 and 0 < out.radius < math.inf):
            raise UserError(
                f"{out} cannot be simulated; give every and steps of 1 or more, a start and a radius above 0."
            )
        return out


class Simulation:
    """The displacement in force and the held-out half that is asked there. Memory: two copies of the weights.

    Args:
        forget: what the original says without the answers, one memory a working template, a row a fact.
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
        """Draw halves, relearn one of them from the weights as they are, keep how far that moved them."""
        n = len(self.forget[0].batch.ids)
        order = self.random.sample(range(n), n)
        half = (len(order) + 1) // 2
        taught, self.held_out = order[:half], order[half:]
        self.displacement = {}  # the memory of the last one serves the gradients
        try:
            with self.trainable.paused():
                for _ in range(self.settings.steps):
                    self._relearn(taught)
            self.displacement = {name: p.detach().clone() for name, p in self.model.parameters.items()}
        finally:  # the weights outside the slices are kept nowhere else
            self._restore()
        for name, p in self.model.parameters.items():
            self.displacement[name] -= p.detach()

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """The weights as relearning would leave them."""
        with torch.no_grad():
            for name, p in self.model.parameters.items():
                p.add_(self.displacement[name])
        try:
            yield
        finally:
            self._restore()

    def question(self) -> TeacherOutputs:
        """The held-out half behind one of the templates."""
        return self.random.choice(self.forget).rows(self.held_out)

    @torch.no_grad()
    def _restore(self) -> None:
        """The weights as training has them."""
        for name, p in self.model.parameters.items():
            p.copy_(self.base[name])
        self.trainable.sync()

    def _relearn(self, rows: list[int]) -> None:
        """One step down the loss on the answers of some facts, `radius` long."""
        relearn_(self.model, self.random.choice(self.forget).rows(rows).batch, self.settings.radius)


def relearn_(model: Model, batch: Batch, radius: float) -> None:
    """Move all weights `radius` down the gradient of the loss on a batch's labels. Call it inside `scratch`."""
    with unfrozen(model) as parameters, torch.enable_grad():
        loss = -token_logprobs(logits(model, batch), batch.labels).sum() / (batch.labels >= 0).sum()
        loss.backward()
        grads = [p.grad for p in parameters if p.grad is not None]
        length = torch.stack([g.norm() for g in grads]).norm()
        with torch.no_grad():
            for p in parameters:
                if p.grad is not None:
                    p.add_(p.grad * (-radius / length))
