"""The evidence in the readings: r of each check, the attacks that succeed, and the inside checks that contradict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..check import Check
from ..checks import by_role
from ..reading import Reading
from .statistics import Recovery, holm, recovery
from .thresholds import ALPHA, DELTA, TELLS

Readings = Mapping[str, Mapping[str, Reading]]


def compare(
    readings: Readings, check: str, *, model: str = "after", delta: float = DELTA, seed: int = 0
) -> Recovery | None:
    """A check's r on a model: the original is 1, the edited model's twins are 0.

    `p` tests that r is at most `delta`. `None` if the check was not run on all of these, or if the original does not
    clearly exceed the twins.
    """
    found = compared(readings, check, model)
    return found and recovery(found.target, found.original, found.twins, delta=delta, seed=seed)


@dataclass(frozen=True)
class Compared:
    """A check's numbers on a model and the original, in the order of `subjects`, and on the edited model's twins."""

    subjects: list[str]
    twin_names: list[str]
    target: np.ndarray
    original: np.ndarray
    twins: np.ndarray


def compared(readings: Readings, check: str, model: str = "after") -> Compared | None:
    """The numbers that `compare` uses; `None` if a reading is missing or was refused."""
    before = readings.get("before", {}).get(check)
    after = readings.get(model, {}).get(check)
    twins = readings.get("after", {}).get(check)
    if not (before and after and twins and twins.samples.get("twins")) or None in (before.value, after.value):
        return None
    target, original = after.samples["forget"], before.samples["forget"]
    subjects = sorted(s for s in target if s in original)
    if not subjects:
        return None
    control = twins.samples["twins"]
    values = [np.array([samples[s] for s in subjects]) for samples in (target, original)]
    return Compared(subjects, list(control), values[0], values[1], np.array(list(control.values())))


@dataclass(frozen=True)
class Evidence:
    """r by check and role; `broken` are attacks that succeed, `contradicting` inside checks that forbid a removal."""

    recoveries: dict[str, Recovery]
    attacks: dict[str, Recovery]
    inside: dict[str, Recovery]
    corroborating: dict[str, Recovery]
    broken: list[str]
    contradicting: list[str]

    @classmethod
    def of(cls, readings: Readings, checks: Sequence[Check], seed: int) -> Evidence:
        """The evidence that the readings give, with the roles of the table."""
        attacks = [c.name for c in by_role("attack", checks)]
        recoveries = {c: r for c in ("recall", *attacks) if (r := compare(readings, c, seed=seed)) is not None}
        primary = {c: r for c, r in recoveries.items() if c in attacks}
        inside = {c.name: r for c in by_role("inside", checks) if (r := _inside(readings, c, seed)) is not None}
        others = [c.name for c in by_role("corroborates", checks)]
        return cls(
            recoveries, primary, inside,
            {c: r for c in others if (r := compare(readings, c, seed=seed)) is not None},
            _significant(primary), _significant(inside),
        )  # fmt: skip

    @property
    def all(self) -> dict[str, Recovery]:
        """r of every check, in the order of the table."""
        return self.recoveries | self.inside | self.corroborating


def _significant(found: Mapping[str, Recovery]) -> list[str]:
    """The checks whose Holm-adjusted p-value is below `ALPHA`."""
    return [c for c, p in zip(found, holm([r.p for r in found.values()]), strict=True) if p < ALPHA]


def _inside(readings: Readings, check: Check, seed: int) -> Recovery | None:
    """The r of an inside check; `None` if it does not tell the original's answers from twins."""
    before = readings["before"].get(check.name)
    if before is None or before.value is None or before.value - before.controls.get("twins", before.value) < TELLS:
        return None
    return compare(readings, check.name, delta=check.contradicts_above, seed=seed)
