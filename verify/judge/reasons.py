"""The sentences that every verdict gives as its reasons, whatever its outcome."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ..check import Check
from ..checks import by_role
from .evidence import Evidence, Readings, compared
from .power import equivalence
from .statistics import Recovery, Span, leaking, span
from .thresholds import DELTA


def explain(readings: Readings, evidence: Evidence, checks: Sequence[Check], seed: int) -> list[str]:
    """The reasons that every verdict gives."""
    attacks = list(evidence.attacks)
    missing = [f"Not measured: {c}. {r.meaning}" for c, r in sorted(readings["after"].items()) if r.value is None]
    return [
        *_recoverable(readings, attacks),
        *(_describe(c, r) for c, r in evidence.all.items()),
        *_equivalent(readings, attacks),
        *_untried(readings, checks),
        *_uninformative(readings, evidence.all, checks, seed),
        *missing,
    ]


def _recoverable(readings: Readings, checks: Sequence[str]) -> list[str]:
    """How many subjects at least one attack recovers, and how many twins seem to be recovered by chance."""
    found = {c: numbers for c in checks if (numbers := compared(readings, c)) is not None}
    if not found:
        return []
    back = {s for c in found.values() for s in np.array(c.subjects)[leaking(c.target, c.original, c.twins)]}
    chance = {t for c in found.values() for t in np.array(c.twin_names)[leaking(c.twins, c.original, c.twins)]}
    n, m = len({s for c in found.values() for s in c.subjects}), len({t for c in found.values() for t in c.twin_names})
    return [
        f"Of {n} subjects, {len(back)} {'was' if len(back) == 1 else 'were'} recoverable by "
        f"{listed(list(found), 'or')}; of {m} twins, {len(chance)} by chance."
    ]


def _untried(readings: Readings, checks: Sequence[Check]) -> list[str]:
    """The checks that the rule would use and this profile does not run."""
    decisive = [*by_role("attack", checks), *by_role("inside", checks)]
    missing = [c.name for c in decisive if c.name not in readings["after"]]
    return [f"Not tried in this profile: {', '.join(missing)}."] if missing else []


def _uninformative(readings: Readings, used: Collection[str], checks: Sequence[Check], seed: int) -> list[str]:
    """The checks that were run but give no r."""
    roles = ("attack", "inside", "corroborates")
    names = ["recall", *(c.name for role in roles for c in by_role(role, checks))]
    found = {c: numbers for c in names if c not in used and (numbers := compared(readings, c)) is not None}
    return [_no_scale(c, span(numbers.original, numbers.twins, seed=seed)) for c, numbers in found.items()]


def _no_scale(check: str, unit: Span) -> str:
    return (
        f"Not informative here: {check}. It reads only {unit.value:.2f} higher on the original than on never-taught "
        f"subjects (95% interval {unit.low:.2f} to {unit.high:.2f}), too little to measure r."
    )


def _describe(check: str, found: Recovery) -> str:
    return (
        f"{check}: r = {found.r:.2f} (95% interval {found.low:.2f} to {found.high:.2f}, "
        f"upper bound {found.upper:.2f}); 0 is as if never taught, 1 is intact."
    )


def _equivalent(readings: Readings, checks: Sequence[str]) -> list[str]:
    """Whether the edited model's subjects and its twins are the same within DELTA of the scale."""
    out = []
    for check in checks:
        samples = readings["after"][check].samples
        target, twins = (np.array(list(samples[g].values())) for g in ("forget", "twins"))
        unit = (readings["before"][check].value or 0.0) - float(np.mean(list(samples["twins"].values())))
        p = equivalence(target, twins, margin=DELTA * unit).p
        out.append(f"{check} {'p = ' + format(p, '.3f') if p >= 0.001 else 'p < 0.001'}")
    return [f"Same as never taught within {DELTA:g} of r (two one-sided tests): {', '.join(out)}."] if out else []


def listed(names: Sequence[str], word: str = "and") -> str:
    """The names as an enumeration: `a, b and c`."""
    return f" {word} ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])
