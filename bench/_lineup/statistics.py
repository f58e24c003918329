"""Exact intervals of shares, and the area under the curve of a score."""

from __future__ import annotations

from collections.abc import Sequence

from scipy import stats


def share_limits(k: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share (Clopper-Pearson).

    >>> [round(limit, 3) for limit in share_limits(0, 20)]
    [0.0, 0.168]
    """
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, k, n - k + 1)) if k else 0.0
    high = float(stats.beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def upper_bound(k: int, n: int) -> float:
    """The exact one-sided 95% upper bound of a share.

    >>> round(upper_bound(0, 59), 3)
    0.05
    """
    return float(stats.beta.ppf(0.95, k + 1, n - k)) if k < n else 1.0


def auroc(left: Sequence[float], gone: Sequence[float]) -> float | None:
    """How often a model with knowledge scores higher than one without; ties count half, `None` without pairs.

    >>> auroc([1, 2], [0, 1])
    0.875
    """
    pairs = [(a > b) + 0.5 * (a == b) for a in left for b in gone]
    return sum(pairs) / len(pairs) if pairs else None
