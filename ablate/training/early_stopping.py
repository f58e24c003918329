"""Looking at what is held out while an edit trains: the best state is kept, and a hopeless training ended."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from ..._util.errors import LokaError, UserError
from ...knowledge import Bounds, Case, HeldOut, Metrics, hold_out

if TYPE_CHECKING:
    from ...model import Model, Trainable

Ended = Literal["steps", "bounds", "collateral", "diverged", "stopped"]
PATIENCE = 2
WHY: dict[Ended, str] = {
    "collateral": "the collateral was far out of bounds and got no better",
    "diverged": "the training diverged",
}


class Diverged(LokaError):
    """The loss or the weights are no longer finite."""


@dataclass(frozen=True)
class TrainResult:
    """How a training went: `steps` taken, the step whose state was `kept`, and why it `ended`.

    Either the `steps` had run out, what is held out was inside its `bounds`, the `collateral` was far out of them and
    got no better, it `diverged`, or the caller `stopped` it. `standing` is that of the kept state; `None` where nobody
    looked.
    """

    steps: int
    kept: int
    ended: Ended
    standing: Metrics | None = None


@dataclass(frozen=True)
class EarlyStopping:
    """Measures what is held out every so many steps of a training; `start` is how the original stands."""

    model: Model
    held: HeldOut
    start: Metrics
    limits: Bounds
    every: int

    def on(self, trainable: Trainable) -> Looking:
        """A training's own look-out."""
        return Looking(self, trainable)

    def told(self, course: TrainResult) -> dict[str, Any]:
        """What an edit says of its training: the course, the kept state, and what it is to be compared with."""
        now = course.standing
        assert now is not None
        return {
            "steps": course.steps, "kept": course.kept, "ended": course.ended, **asdict(now),
            "retain_before": self.start.retain, "perplexity_rise": now.perplexity / self.start.perplexity - 1,
            "met": self.limits.met(now, self.start), "far": self.limits.far(now, self.start),
        }  # fmt: skip


class Looking:
    """Keeps the slices of the state nearest to the bounds. Memory: one copy of them."""

    def __init__(self, watch: EarlyStopping, trainable: Trainable) -> None:
        self.watch, self.trainable = watch, trainable
        self.best, self.kept, self.standing = math.inf, 0, None
        self._values: list[Tensor] = []
        self._seen, self._lowest, self._worse = 0, math.inf, 0

    def ends(self, step: int) -> Ended | None:
        """Called after each step, from 1 on: measure when it is time, and say whether to end here."""
        return None if step % self.watch.every else self._look(step)

    def restored(self) -> bool:
        """Put the best state back, and say whether there is one."""
        if self._values:
            self.trainable.write_(self._values)
        return bool(self._values)

    def course(self, steps: int, ended: Ended) -> TrainResult:
        """How it went, with the best state put back; the end is measured too, unless it diverged.

        Raises:
            LokaError: no state was any good.
        """
        if ended != "diverged" and steps != self._seen and self._look(steps) == "diverged":
            ended = "diverged"
        if not self.restored():
            raise Diverged("training diverged before the first measurement; try a lower learning rate.")
        return TrainResult(steps, self.kept, ended, self.standing)

    def _look(self, step: int) -> Ended | None:
        watch, self._seen = self.watch, step
        now = watch.held.measure(watch.model)
        distance, collateral = watch.limits.distance(now, watch.start), watch.limits.collateral(now, watch.start)
        if math.isnan(distance):
            return "diverged"
        if distance < self.best:
            self.best, self.kept, self.standing = distance, step, now
            self._values = [p.detach().clone() for p in self.trainable.parameters]
        self._worse = self._worse + 1 if collateral >= self._lowest else 0
        self._lowest = min(self._lowest, collateral)
        if not distance:
            return "bounds"
        return "collateral" if self._worse >= PATIENCE and watch.limits.far(now, watch.start) else None


def watching(
    model: Model, case: Case, *, every: int, bounds: Mapping[str, float] | None
) -> tuple[Case, EarlyStopping | None]:
    """The case to train on and the watch over it; with `every` 0 all of the case, and nobody who looks.

    Raises:
        UserError: bounds without measurements, or unknown ones.
    """
    if every < 0 or (bounds and not every):
        raise UserError(f"every={every} measures nothing to hold against bounds; give a number of steps, such as 10.")
    if not every:
        return case, None
    held, limits = hold_out(model, case), limited(bounds)
    return held.case, EarlyStopping(model, held, held.measure(model), limits, every)


def limited(bounds: Mapping[str, float] | None) -> Bounds:
    """Bounds by their names.

    Raises:
        UserError: others.
    """
    known = asdict(Bounds())
    if other := [name for name in bounds or {} if name not in known]:
        raise UserError(f"{other[0]!r} is no bound; choose of {', '.join(known)}.")
    return Bounds(**bounds or {})


def warn(course: TrainResult, *, of: str = "the training") -> None:
    """Say that a training ended early for a bad reason, and what was kept."""
    if course.ended in WHY:
        warnings.warn(
            f"{of} was stopped after {course.steps} steps: {WHY[course.ended]}; kept is the best state that was "
            f"measured, that after {course.kept}. Try a lower learning rate, fewer sites or a larger retain weight.",
            stacklevel=3,
        )
