"""What one check measured on one model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, cast

import numpy as np
from pydantic import BeforeValidator, JsonValue

from .._util.records import read_record
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

    If a check could not be run, `value` is `None` and `meaning` says why.
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
        """Read what `to_json` wrote; a number that JSON does not have is NaN again.

        Raises:
            UserError: something else.
        """
        return read_record(cls, data, "a reading")


def refusal(check: str, reason: str) -> Reading:
    """The reading of a check that could not be run."""
    return Reading(check, None, None, 0, {}, reason)


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
    values = np.array(list(groups.get("forget", {}).values()))
    controls = {g: float(np.mean(list(s.values()))) for g, s in groups.items() if g != "forget" and s}
    mean, ci = (float(values.mean()), interval(values, seed=seed)) if len(values) else (None, None)
    return Reading(
        check, mean, ci, len(values), controls, meaning, groups, cast(dict[str, JsonValue], dict(details or {})), cost
    )
