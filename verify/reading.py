"""What one check measured on one model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, cast

import numpy as np
from pydantic import BeforeValidator, JsonValue

from .._util.records import read_record
from .finite import named, without_strange
from .judge.statistics import interval

# A whole number stays one, so that what is read and written again is the same. NaN, which a measurement may give, is
# `null` in a file.
Exact = bool | int | float
Number = Annotated[Exact, BeforeValidator(lambda value: math.nan if value is None else value)]


@dataclass(frozen=True)
class Reading:
    """One check's measurement on one model.

    `value` is the mean over the forget units, `ci` its 95% bootstrap interval over units, and `n` their number.
    `controls` holds the same mean for each control group, such as `twins`, which were never taught. `samples` holds the
    number of every unit, by group and then by unit, so that comparisons can resample units. `details` holds whatever
    else the check reports, as plain JSON. `cost` is in forward passes of one row.

    If a check could not be run, `value` is `None` and `meaning` says why. So it is where a number of a unit is not
    finite: NaN and infinities are taken out, `not_finite` says what they were, and no verdict passes with one.
    """

    check: str
    value: Exact | None
    ci: tuple[Number, Number] | None
    n: int
    controls: dict[str, Number]
    meaning: str
    samples: dict[str, dict[str, Number]] = field(default_factory=dict, repr=False)
    details: dict[str, JsonValue] = field(default_factory=dict, repr=False)
    cost: Exact = 0.0
    not_finite: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers, strange = without_strange((self.samples, self.controls, self.value, self.ci))
        details, others = without_strange(self.details)
        if not (strange or others):
            return
        names = tuple(named([(at[1:] or ("value",), value) for at, value in strange] or others))
        made: dict[str, object] = {"details": details, "not_finite": (*self.not_finite, *names)}
        if strange:
            samples, controls, *_ = numbers
            made |= {
                "samples": {group: _there(of) for group, of in samples.items()}, "controls": _there(controls),
                "value": None, "ci": None, "meaning": f"It gave numbers that are not finite: {'; '.join(names)}.",
            }  # fmt: skip
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.check}: not measured. {self.meaning}"
        low, high = self.ci or (float("nan"), float("nan"))
        return f"{self.check}: {self.value:.3f} [{low:.3f}, {high:.3f}], n={self.n}. {self.meaning}"

    def to_json(self) -> dict[str, JsonValue]:
        """Plain dictionaries, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue]) -> Reading:
        """Read what `to_json` wrote.

        Raises:
            UserError: something else.
        """
        return read_record(cls, data, "a reading")


def refusal(check: str, reason: str, *, not_finite: tuple[str, ...] = ()) -> Reading:
    """The reading of a check that could not be run."""
    return Reading(check, None, None, 0, {}, reason, not_finite=not_finite)


def make_reading(
    check: str,
    samples: Mapping[str, Mapping[str, float]],
    meaning: str,
    *,
    seed: int = 0,
    details: Mapping[str, object] | None = None,
    cost: float = 0.0,
) -> Reading:
    """A reading from samples by group; the group `forget` gives the value, all other groups are controls.

    Samples are sorted by unit, so that resampling gives the same result after they are written and read again.
    `details` must be plain JSON.
    """
    groups = {group: dict(sorted(samples[group].items())) for group in sorted(samples)}
    finite = {g: np.array([v for v in s.values() if math.isfinite(v)]) for g, s in groups.items()}
    controls = {g: float(np.mean(values)) for g, values in finite.items() if g != "forget" and len(values)}
    values = finite.get("forget", np.zeros(0))
    mean, ci = (float(values.mean()), interval(values, seed=seed)) if len(values) else (None, None)
    return Reading(
        check, mean, ci, len(values), controls, meaning, groups, cast(dict[str, JsonValue], dict(details or {})), cost
    )


def _there(values: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that are left."""
    return {name: value for name, value in values.items() if value is not None}
