"""How many facts a claim needs, before a run and after it, and whether two groups are the same within a margin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .statistics import Recovery

ALPHA = 0.05
MOST = 100_000


@dataclass(frozen=True)
class Equivalence:
    """`difference` of the means, its 90% interval, and `p`: below 0.05 it lies within the margin."""

    difference: float
    low: float
    high: float
    p: float


def equivalence(target: np.ndarray, control: np.ndarray, *, margin: float) -> Equivalence:
    """Two one-sided Welch tests (TOST) that the means differ by less than a margin either way.

    A difference that is not significant does not show that there is none; this test can. Schuirmann 1987,
    doi:10.1007/BF01068419.

    Args:
        target, control: `[subject]` and `[other subject]`, independent of each other.
        margin: in the unit of the values.
    """
    difference = float(np.mean(target) - np.mean(control))
    if np.ptp(target) == 0 and np.ptp(control) == 0:
        return Equivalence(difference, difference, difference, float(abs(difference) >= margin))
    above = stats.ttest_ind(np.asarray(target) + margin, control, equal_var=False, alternative="greater")
    below = stats.ttest_ind(np.asarray(target) - margin, control, equal_var=False, alternative="less")
    interval = stats.ttest_ind(target, control, equal_var=False).confidence_interval(0.90)
    return Equivalence(difference, float(interval.low), float(interval.high), float(max(above.pvalue, below.pvalue)))


def power(n: int, *, delta: float, leak: float = 0.0, checks: int = 1) -> float:
    """The chance that a model whose facts leak in a share `leak` of subjects passes all checks with `n` subjects.

    A check is passed where the exact 95% upper bound on the share of leaks lies below `delta`; checks are taken for
    independent, which makes this a lower bound for those that leak by the same chance.

    >>> power(28, delta=0.1), power(29, delta=0.1)
    (0.0, 1.0)
    """
    return float(stats.binom.cdf(_allowed(n, delta), n, leak) ** checks)


def subjects_for(*, delta: float, leak: float = 0.0, checks: int = 1, wanted: float = 0.8) -> int | None:
    """The fewest subjects with which a removed model passes with at least this chance, also with any more of them.

    Args:
        leak: how often a never-taught subject reads as a leak, by chance; the twins of the original show it.

    Returns:
        `None` where chance leaks as often as `delta` allows: then no number is enough.

    >>> subjects_for(delta=0.1), subjects_for(delta=0.1, leak=0.02, checks=5)
    (29, 110)
    """
    if leak >= delta:
        return None
    low, high = 1, 2
    while high < MOST and min(power(n, delta=delta, leak=leak, checks=checks) for n in _near(high, delta)) < wanted:
        low, high = high, 2 * high
    passing = [power(n, delta=delta, leak=leak, checks=checks) >= wanted for n in range(low, high + _step(delta))]
    last_failure = max((i for i, ok in enumerate(passing) if not ok), default=-1)
    return low + last_failure + 1


def subjects_after(found: Recovery, n: int, *, delta: float) -> int | None:
    """How many subjects would have put the upper bound of what was measured below `delta`, had they spread alike.

    Returns:
        `None` where r itself is not below `delta`: more subjects would show that only more clearly.
    """
    if found.r >= delta:
        return None
    width = max(found.upper - found.r, 0.0)
    return max(int(np.ceil(n * (width / (delta - found.r)) ** 2)), subjects_for(delta=delta) or 1)


def _allowed(n: int, delta: float) -> int:
    """With how many leaks in `n` the exact bound still lies below `delta`; -1 where not even none will do."""
    leaks = np.arange(n)
    bounds = stats.beta.ppf(1 - ALPHA, leaks + 1, n - leaks)
    return int((bounds < delta).sum()) - 1


def _step(delta: float) -> int:
    """About how many more subjects it takes until one more leak is allowed; power falls in between."""
    return int(np.ceil(2 / delta))


def _near(n: int, delta: float) -> range:
    return range(n, n + _step(delta))
