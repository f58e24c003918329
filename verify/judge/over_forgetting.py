"""Over-forgetting: the answers are less likely than for subjects that were never taught.

What is recalled, and the probability among a pool, are near zero for what was never taught, so hardly anything lies
below. Log-odds and the loss have no floor, so they show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .evidence import Readings
from .statistics import Recovery, recovery
from .thresholds import DELTA

LIKELIHOOD = {"log_odds": "log-odds", "log_probability": "log-probability of an answer's token"}


class Below(NamedTuple):
    """A measure that lies below never-taught: its name, its r with the upper bound, and its means if in nats."""

    name: str
    r: float
    high: float
    target: float | None = None
    never: float | None = None

    def __str__(self) -> str:
        means = "" if self.target is None else f", {self.target:.1f} against {self.never:.1f} nats"
        return f"{self.name} (r = {self.r:.2f}{means})"


def over_forgotten(readings: Readings, recoveries: Mapping[str, Recovery], seed: int) -> list[Below]:
    """The measures by which the answers lie more than `DELTA` of the scale below never-taught.

    These are recall itself; and, with the whole 95% interval below that, every attack's probability, and the log-odds
    of the answers, or their mean log-probability where they have no foils. Twins have other answers, whose frequency a
    log-probability cannot tell from what was forgotten; among foils it matters less. Where a reading has only the means
    of the log-odds, these are compared.
    """
    found = [Below(c, r.r, r.high) for c, r in recoveries.items() if (r.r if c == "recall" else r.high) < -DELTA]
    by_likelihood = (_by_likelihood(readings, name, seed) for name in LIKELIHOOD)
    first = next((b for b in by_likelihood if b is not None), None)
    return [*found, first] if first and first.high < -DELTA else found


def _by_likelihood(readings: Readings, name: str, seed: int) -> Below | None:
    """How far a likelihood lies from never-taught; `None` if it is not measured."""
    target, original, never = (
        _values(readings, model, group, name)
        for model, group in (("after", "forget"), ("before", "forget"), ("after", "twins"))
    )
    if not (len(target) and len(never)) or len(target) != len(original):
        return None
    found = recovery(target, original, never, delta=DELTA, seed=seed)
    return found and Below(LIKELIHOOD[name], found.r, found.high, float(target.mean()), float(never.mean()))


def _values(readings: Readings, model: str, group: str, name: str) -> np.ndarray:
    """A likelihood by unit, or its mean alone where nothing else is stored; empty where it was not measured."""
    recall = readings.get(model, {}).get("recall")
    details: Any = recall.details if recall else {}
    values = details.get("likelihood", {}).get(group, {}).get(name)
    if values is None:
        values = [details.get(name if group == "forget" else f"{name}_{group}")]
    return np.array([] if None in values else values, dtype=float)
