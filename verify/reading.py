"""What one check measured on one model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .judge.statistics import interval


@dataclass(frozen=True)
class Reading:
    """One check's measurement on one model.

    `value` is the mean over the forget subjects, `ci` its 95% bootstrap interval over subjects, `n` how
    many there are. `controls` holds the same number on what was never taught (`twins`) and wherever else
    the check looked. `samples` holds the number of each subject, by group and then by subject, so that
    whoever compares models can resample subjects. `cost` is in forward-pass equivalents of one row.
    A refused check has `value` `None` and says why in `meaning`.
    """

    check: str
    value: float | None
    ci: tuple[float, float] | None
    n: int
    controls: dict[str, float]
    meaning: str
    samples: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)
    details: dict[str, Any] = field(default_factory=dict, repr=False)
    cost: float = 0.0

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.check}: not measured. {self.meaning}"
        low, high = self.ci or (float("nan"), float("nan"))
        return f"{self.check}: {self.value:.3f} [{low:.3f}, {high:.3f}], n={self.n}. {self.meaning}"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Reading:
        """What `to_json` gave."""
        ci = data["ci"]
        return cls(**{**data, "ci": None if ci is None else (ci[0], ci[1])})


def refused(check: str, why: str) -> Reading:
    """A reading of a check that could not be made."""
    return Reading(check, None, None, 0, {}, why)


def reading(
    check: str,
    samples: dict[str, dict[str, float]],
    meaning: str,
    *,
    seed: int = 0,
    details: dict[str, Any] | None = None,
    cost: float = 0.0,
) -> Reading:
    """A reading from samples by group; the group `forget` is the one measured, the others are controls.

    Samples are sorted by key, so that resampling them gives the same after they were written and read again.
    """
    samples = {group: dict(sorted(of_group.items())) for group, of_group in sorted(samples.items())}
    values = np.array(list(samples.get("forget", {}).values()))
    controls = {g: float(np.mean(list(s.values()))) for g, s in samples.items() if g != "forget" and s}
    mean, ci = (float(values.mean()), interval(values, seed=seed)) if len(values) else (None, None)
    return Reading(check, mean, ci, len(values), controls, meaning, samples, details or {}, cost)
