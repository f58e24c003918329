"""The number of facts that a claim needs, before and after a run, and a test that two groups are equivalent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .statistics import Recovery, leak_bound, subjects_needed

MOST = 1000
NEVER = 1e-15  # less likely counts are left out, because there are n squared pairs of counts


@dataclass(frozen=True)
class Equivalence:
    """The `difference` of the means, its 90% interval, and `p`: below 0.05, the difference is within the margin."""

    difference: float
    low: float
    high: float
    p: float


def equivalence(target: np.ndarray, control: np.ndarray, *, margin: float) -> Equivalence:
    """Two one-sided Welch tests (TOST) that the means differ by less than a margin in either direction.

    A difference that is not significant does not prove equality; this test can. Schuirmann 1987,
    doi:10.1007/BF01068419.

    Args:
        target, control: `[subject]` and `[other subject]`, independent of each other.
        margin: in the unit of the values.
    """
    sizes = np.array([len(target), len(control)])
    parts = np.array([np.var(target, ddof=1), np.var(control, ddof=1)]) / sizes
    difference, error = float(np.mean(target) - np.mean(control)), float(np.sqrt(parts.sum()))
    if error == 0:
        return Equivalence(difference, difference, difference, float(abs(difference) >= margin))
    t = stats.t(parts.sum() ** 2 / (parts**2 / (sizes - 1)).sum())
    half = error * t.ppf(0.95)
    p = t.sf((margin - abs(difference)) / error)
    return Equivalence(difference, difference - half, difference + half, float(p))


def power(n: int, *, delta: float, leak: float = 0.0, checks: int = 1) -> float:
    """The probability that a removed model passes all checks, with `n` subjects and as many twins.

    A model passes a check if the 95% bound on leaks beyond those of the twins (`statistics.leak_bound`) is below
    `delta`. The checks are assumed to be independent, so this is a lower bound for checks that leak on the same
    subjects.

    Args:
        leak: the share of subjects, never taught or removed, for which a check finds the answer by chance; the twins of
            the original show it.

    >>> power(28, delta=0.1), power(29, delta=0.1)
    (0.0, 1.0)
    """
    counts = np.arange(n + 1)
    chance = stats.binom.pmf(counts, n, leak)
    counts, chance = counts[chance > NEVER], chance[chance > NEVER]
    passed = leak_bound(counts[:, None], n, counts[None], n) < delta
    return float((chance[:, None] * chance[None] * passed).sum() ** checks)


def subjects_for(*, delta: float, leak: float = 0.0, checks: int = 1, wanted: float = 0.8) -> int | None:
    """The smallest number of subjects, with as many twins, for which a removed model passes with this probability.

    Power dips slightly just before one more leak is allowed; the next larger numbers of subjects reach it too.

    Returns:
        `None` if 1,000 subjects are not enough.

    >>> subjects_for(delta=0.1), subjects_for(delta=0.1, leak=0.02, checks=5)
    (29, 80)
    """
    run, step = 0, int(np.ceil(1 / delta))
    for n in range(2, MOST + step):
        run = run + 1 if power(n, delta=delta, leak=leak, checks=checks) >= wanted else 0
        if run == step:
            return n - step + 1
    return None


def subjects_after(found: Recovery, n: int, *, delta: float) -> int | None:
    """How many subjects, with the same spread, would have put the measured upper bound below `delta`.

    Returns:
        `None` if r itself is not below `delta`: more subjects would only confirm that.
    """
    if found.r >= delta:
        return None
    width = max(found.upper - found.r, 0.0)
    return max(int(np.ceil(n * (width / (delta - found.r)) ** 2)), subjects_needed(delta))
