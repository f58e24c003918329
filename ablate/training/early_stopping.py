"""Early stopping: measure a held-out part while an edit trains, keep the best state, and end a hopeless training."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from ..._util.errors import LokaError
from ...knowledge import Bounds, Case, HeldOut, Metrics, hold_out
from ...model import TrainingRecord
from .config import TrainingConfig

if TYPE_CHECKING:
    from ...model import Model, Trainable

Ended = Literal["steps", "bounds", "collateral", "diverged", "stopped"]
PATIENCE = 2
REASONS: dict[Ended, str] = {
    "collateral": "the collateral was far outside the bounds and did not improve",
    "diverged": "the training diverged",
}


class Diverged(LokaError):
    """The loss or the weights are no longer finite."""


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training.

    `steps`: the number of steps taken. `best_step`: the step whose state was kept. `ended`: the `steps` ran out, the
    held-out part was inside its `bounds`, the `collateral` was far outside of them and did not improve, it `diverged`,
    or the caller `stopped` it. `metrics`: the metrics of the best state; `None` if nothing was measured.
    """

    steps: int
    best_step: int
    ended: Ended
    metrics: Metrics | None = None


@dataclass(frozen=True)
class EarlyStopping:
    """Measures a held-out part at regular steps of a training; `start`: the original's metrics."""

    model: Model
    held_out: HeldOut
    start: Metrics
    bounds: Bounds
    every: int

    def on(self, trainable: Trainable) -> BestState:
        """The tracker of the best state for one training."""
        return BestState(self, trainable)

    def record(self, result: TrainResult) -> TrainingRecord:
        """The outcome as an edit's record holds it."""
        now = result.metrics
        assert now is not None
        return TrainingRecord(
            result.steps, result.best_step, result.ended, **asdict(now), retain_before=self.start.retain,
            perplexity_rise=now.perplexity / self.start.perplexity - 1, met=self.bounds.met(now, self.start),
            far=self.bounds.far(now, self.start),
        )  # fmt: skip


class BestState:
    """Stores the slices of the state nearest to the bounds. Memory: one copy of the slices."""

    def __init__(self, stopping: EarlyStopping, trainable: Trainable) -> None:
        self.stopping, self.trainable = stopping, trainable
        self.distance, self.step, self.metrics = math.inf, 0, None
        self._values: list[Tensor] = []
        self._last, self._lowest, self._worse = 0, math.inf, 0

    def check(self, step: int) -> Ended | None:
        """Measure if a measurement is due; return the reason to end the training, if any. Steps count from 1."""
        return None if step % self.stopping.every else self._measure(step)

    def restore(self) -> bool:
        """Restore the best state, and return whether there is one."""
        if self._values:
            self.trainable.write_(self._values)
        return bool(self._values)

    def result(self, steps: int, ended: Ended) -> TrainResult:
        """Restore the best state and return the outcome. The last state is measured too, unless the training diverged.

        Raises:
            LokaError: training diverged before any state was measured.
        """
        if ended != "diverged" and steps != self._last and self._measure(steps) == "diverged":
            ended = "diverged"
        if not self.restore():
            raise Diverged("training diverged before the first measurement; try a lower learning rate.")
        return TrainResult(steps, self.step, ended, self.metrics)

    def _measure(self, step: int) -> Ended | None:
        stopping, self._last = self.stopping, step
        bounds, start = stopping.bounds, stopping.start
        now = stopping.held_out.measure(stopping.model)
        distance, collateral = bounds.distance(now, start), bounds.collateral(now, start)
        if math.isnan(distance):
            return "diverged"
        if distance < self.distance:
            self.distance, self.step, self.metrics = distance, step, now
            self._values = [p.detach().clone() for p in self.trainable.parameters]
        self._worse = self._worse + 1 if collateral >= self._lowest else 0
        self._lowest = min(self._lowest, collateral)
        if not distance:
            return "bounds"
        return "collateral" if self._worse >= PATIENCE and bounds.far(now, start) else None


def early_stopping(model: Model, case: Case, config: TrainingConfig) -> EarlyStopping | None:
    """The early stopping that a configuration asks for; its `held_out.case` is the case to train on.

    Raises:
        UserError: the case has too little to hold anything out.
    """
    if not config.every:
        return None
    held_out = hold_out(model, case)
    return EarlyStopping(model, held_out, held_out.measure(model), config.bounds or Bounds(), config.every)


def warn_if_cut_short(result: TrainResult, *, name: str = "the training") -> None:
    """Warn that a training ended early for a bad reason, and say which state remains."""
    if result.ended in REASONS:
        warnings.warn(
            f"{name} was stopped after {result.steps} steps: {REASONS[result.ended]}. The edit holds the best measured "
            f"state, that of step {result.best_step}. Try a lower learning rate, fewer sites or more retain weight.",
            stacklevel=3,
        )
