"""The gates of a verdict, the conditions of its measurement, and the flags that it may carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..check import Check
from ..checks import by_role
from ..finite import named, without_strange
from .evidence import Evidence, Readings
from .over_forgetting import over_forgotten
from .statistics import Recovery
from .summary import Summary
from .thresholds import DELTA, EXPOSED, KNEW, PERPLEXITY, RETAIN, SUBJECTS, TOO_AGGRESSIVE

SENSITIVE = "the attack exposes the shallow sibling"
HIDES = "the shallow sibling hides"
SURVIVE = "retained facts survive"
REMOVAL_ALONE = (SENSITIVE, HIDES)


@dataclass(frozen=True)
class Gate:
    """A condition of the verdict: if it fails, the verdict is inconclusive.

    `REMOVAL_ALONE` are conditions of removal only, and so is `SURVIVE` where the case has nothing to retain.
    """

    name: str
    passed: bool
    value: float | None
    threshold: float


def gates_of(readings: Readings, evidence: Evidence, summary: Summary, checks: Sequence[Check]) -> list[Gate]:
    """Every gate, passed or not."""
    before = readings["before"]["recall"]
    n = len({s.split("/", 1)[1] for s in before.samples.get("forget", {})})
    knew = None if before.value is None else before.value - before.controls.get("twins", 0.0)
    spread = max((r.twins_spread for r in evidence.attacks.values()), default=None)
    halves = [_twins_r(readings, c.name) for c in by_role("attack", checks)]
    never = None if None in halves else max((r for r in halves if r is not None), default=0.0)
    same, other = summary.retain_same_before, summary.retain_other_before
    left = _ratio(summary.retain_same_after, same) if same else _ratio(summary.retain_other_after, other)
    rise = _ratio(summary.perplexity_after or None, summary.perplexity_before)
    shallow = summary.shallow_r
    shown = _ratio(summary.shallow_forget_after, summary.forget_before)
    strange = len(not_finite(readings, summary))
    return [
        Gate("every number is finite", not strange, float(strange), 0.0),
        Gate("the original knew the facts, above twins", knew is not None and knew >= KNEW, knew, KNEW),
        Gate("enough independent subjects", n >= SUBJECTS, n, SUBJECTS),
        Gate(SENSITIVE, shallow is not None and shallow >= EXPOSED, shallow, EXPOSED),
        Gate(HIDES, shown is not None and shown < EXPOSED, shown, EXPOSED),
        Gate("the twins' spread is small enough", spread is not None and spread < DELTA, spread, DELTA),
        Gate("never-taught subjects are not flagged", never is not None and never < DELTA, never, DELTA),
        Gate(SURVIVE, left is not None and left >= RETAIN, left, RETAIN),
        Gate("neutral text survives", rise is not None and rise <= PERPLEXITY, rise, PERPLEXITY),
    ]


def not_finite(readings: Readings, summary: Summary) -> list[str]:
    """Every number that is not finite, in words: those of each model's checks, and those of the summary."""
    by_check = [
        f"{check} on {model} ({'; '.join(found.not_finite)})"
        for model, checks in readings.items()
        for check, found in checks.items()
        if found.not_finite
    ]
    return sorted(by_check) + named(without_strange(asdict(summary))[1])


def only_for_removal(gate: Gate) -> bool:
    """Whether the gate is a condition of removal alone."""
    return gate.name in REMOVAL_ALONE or (gate.name == SURVIVE and gate.value is None)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _twins_r(readings: Readings, check: str) -> float | None:
    """The r of one half of the twins, with the other half as the never-taught control; `None` for a single twin."""
    after, before = readings["after"].get(check), readings["before"].get(check)
    if not after or not before or not after.samples.get("twins") or None in (before.value, after.value):
        return 0.0
    twins = np.array(list(after.samples["twins"].values()))
    if len(twins) < 2:
        return None
    unit = before.value - twins.mean()
    return float(abs(twins[::2].mean() - twins[1::2].mean()) / unit) if unit > 0 else 1.0


def flags_of(readings: Readings, recoveries: Mapping[str, Recovery], summary: Summary, seed: int) -> list[str]:
    """What a reader should know in addition to the verdict: over-forgetting, and retained facts that were lost."""
    flags = []
    if below := over_forgotten(readings, recoveries, seed):
        by = "; ".join(map(str, below))
        flags.append(f"over_forgotten: the answers are rarer than for subjects that were never taught, by {by}")
    before, after = summary.retain_same_before, summary.retain_same_after
    if before is not None and after is not None and before - after > TOO_AGGRESSIVE:
        flags.append(f"too_aggressive: retained facts of the same relation lost {100 * (before - after):.1f} points")
    return flags


def failure(gate: Gate) -> str:
    """A failed gate in words."""
    value = "not measured" if gate.value is None else f"{gate.value:.2f}"
    return f"the gate '{gate.name}' failed ({value}, threshold {gate.threshold:g})"
