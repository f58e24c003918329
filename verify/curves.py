"""Readings of attacks that train, step by step, and their comparison at a common step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np

from .reading import Reading, make_reading

ByStep = Mapping[str, Mapping[str, Mapping[str, float]]]  # by group, measured step and unit


def mean_curves(by_step: ByStep) -> dict[str, dict[str, float]]:
    """The mean of each group by measured step."""
    return {g: {s: float(np.mean(list(v.values()))) for s, v in steps.items()} for g, steps in by_step.items()}


def strongest(by_step: ByStep, steps: int) -> dict[str, int]:
    """For each group, the measured step up to `steps` at which its mean is highest; step 0 is before the attack.

    >>> strongest({"forget": {"0": {"a": 0.1}, "2": {"a": 0.9}, "4": {"a": 0.5}}}, 4)
    {'forget': 2}
    """
    means = {g: {int(s): m for s, m in curve.items() if int(s) <= steps} for g, curve in mean_curves(by_step).items()}
    return {g: max(sorted(curve), key=lambda s: np.nan_to_num(curve[s], nan=-np.inf)) for g, curve in means.items()}


def at_strongest(by_step: ByStep, steps: int) -> dict[str, dict[str, float]]:
    """The samples of each group at its strongest step: an attacker stops where most is back, for twins alike."""
    return {group: dict(by_step[group][str(step)]) for group, step in strongest(by_step, steps).items()}


def at_step(found: Reading, step: int) -> Reading:
    """The reading as it would be if the attack had ended at this step, which must be one of the measured steps."""
    # what was not finite is stored as None
    by_step = {
        group: {s: {u: math.nan if v is None else v for u, v in of.items()} for s, of in steps.items()}
        for group, steps in _by_step(found).items()
    }
    samples = at_strongest(by_step, step)
    mean = np.mean(list(samples["forget"].values()))
    return make_reading(
        found.check,
        samples,
        f"Had the attack ended after {step} steps, the answers would get a probability of {mean:.2f} at most.",
        details={**found.details, "steps": step, "strongest": strongest(by_step, step)},
        cost=found.cost,
    )


def at_common_budget(readings: Mapping[str, Mapping[str, Reading]]) -> dict[str, dict[str, Reading]]:
    """Readings by model and check, with every attack that trains cut to the budget that the edited model faced."""
    out = {model: dict(checks) for model, checks in readings.items()}
    for check, after in readings.get("after", {}).items():
        step = after.details.get("steps")
        if step is None:
            continue
        for checks in out.values():
            found = checks.get(check)
            steps = _by_step(found).get("forget", {}) if found else {}
            if found is not None and found.details.get("steps") != step and str(step) in steps:
                checks[check] = at_step(found, cast(int, step))
    return out


def _by_step(found: Reading) -> ByStep:
    return cast(ByStep, found.details.get("by_step", {}))
