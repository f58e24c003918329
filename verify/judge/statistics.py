"""Intervals and tests over subjects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 2000
LEAST_SPAN = 0.05


def interval(values: np.ndarray, *, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean over subjects."""
    if len(values) < 2 or np.ptp(values) == 0:
        mean = float(np.mean(values))
        return mean, mean
    result = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=level, method="percentile",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


@dataclass(frozen=True)
class Chosen:
    """Each subject's value under the option chosen for its half: `forget` `[subject]`, `twins` `[twin]`, `options`."""

    forget: np.ndarray
    twins: np.ndarray
    options: tuple[int, int]


def cross_fitted(forget: np.ndarray, twins: np.ndarray) -> Chosen:
    """For each half of the subjects, choose the option where the other half's forget facts most exceed twins.

    An option whose numbers are not finite, such as a learning rate that diverges, is chosen last. Choosing the best of
    many options on the same subjects would overestimate it; choosing on other subjects does not.

    Args:
        forget, twins: `[subject, option]` and `[twin, option]`; without twins, forget facts alone decide.

    >>> found = cross_fitted(np.array([[0.1, 0.9], [0.2, 0.8]]), np.zeros((0, 2)))
    >>> found.options, found.forget.tolist()
    ((1, 1), [0.9, 0.8])
    """
    picked = [np.zeros(len(forget)), np.zeros(len(twins))]
    options = []
    for half in (0, 1):
        own, other = (_mean(values[1 - half :: 2], values) for values in (forget, twins))
        best = int(np.nan_to_num(own - other, nan=-np.inf).argmax())
        options.append(best)
        for out, values in zip(picked, (forget, twins), strict=True):
            out[half::2] = values[half::2, best]
    return Chosen(picked[0], picked[1], (options[0], options[1]))


def _mean(chosen: np.ndarray, all_rows: np.ndarray) -> np.ndarray:
    """The mean over the chosen rows, or over all rows if none are chosen; zero without any rows."""
    rows = chosen if len(chosen) else all_rows
    return rows.mean(0) if len(rows) else np.zeros(all_rows.shape[1])


@dataclass(frozen=True)
class Span:
    """How far the original exceeds what was never taught, with the 95% interval: the unit of r."""

    value: float
    low: float
    high: float

    @property
    def measures(self) -> bool:
        """Whether r is defined: a span that may be zero would make it arbitrary."""
        return self.low >= LEAST_SPAN


def span(original: np.ndarray, twins: np.ndarray, *, seed: int = 0) -> Span:
    """The distance between the means of subjects and twins, with its bootstrap interval.

    Args:
        original: `[subject]`.
        twins: `[twin]`.
    """
    _, spans, _ = _resampled(original, original, twins, seed)
    low, high = np.quantile(spans, [0.025, 0.975])
    return Span(float(original.mean() - twins.mean()), float(low), float(high))


def _resampled(
    target: np.ndarray, original: np.ndarray, twins: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each resample: the target's lead over the twins, the original's lead, and the twins' mean."""
    rng = np.random.default_rng(seed)
    pick = rng.integers(len(target), size=(RESAMPLES, len(target)))
    base = twins[rng.integers(len(twins), size=(RESAMPLES, len(twins)))].mean(1)
    return target[pick].mean(1) - base, original[pick].mean(1) - base, base


@dataclass(frozen=True)
class Recovery:
    """`r = (target - never taught) / (original - never taught)`: 0 is as if never taught, 1 is intact.

    `low` and `high` are its two-sided 95% bounds, `upper` is its one-sided 95% bound, and `p` is the one-sided
    bootstrap p-value of `r <= delta`. `twins_spread` is the 95% half-width of the never-taught mean on this scale.
    """

    r: float
    low: float
    high: float
    upper: float
    p: float
    twins_spread: float


def recovery(
    target: np.ndarray, original: np.ndarray, twins: np.ndarray, *, delta: float, seed: int = 0
) -> Recovery | None:
    """Bootstrap r over subjects. Target and original are resampled in pairs, twins separately.

    Args:
        target, original: `[subject]`, the same subjects in the same order.
        twins: `[twin]`.

    Returns:
        `None` if the original does not clearly exceed what was never taught (`Span.measures`): r then has no scale; so
        it is with numbers that are not finite.
    """
    if not np.isfinite(np.concatenate([target, original, twins])).all():
        return None
    unit = span(original, twins, seed=seed)
    if not unit.measures:
        return None
    leads, spans, base = _resampled(target, original, twins, seed)
    draws = leads / np.maximum(spans, 1e-6)
    low, high = np.quantile(draws, [0.025, 0.975])
    centre = twins.mean()
    leaked, chance = (int(leaking(v, original, twins).sum()) for v in (target, twins))
    return Recovery(
        r=float((target.mean() - centre) / unit.value),
        low=float(low),
        high=float(high),
        upper=max(
            float(np.quantile(draws, 0.95)),
            float(leak_bound(leaked, len(target), chance, len(twins))),
        ),
        p=float((1 + (~(draws > delta)).sum()) / (1 + RESAMPLES)),
        twins_spread=float(np.quantile(np.abs(base - centre), 0.95) / unit.value),
    )


def leaking(values: np.ndarray, original: np.ndarray, twins: np.ndarray) -> np.ndarray:
    """Whether each subject reads more than half of what the original does, above what was never taught, `[subject]`."""
    centre = twins.mean()
    return values - centre > 0.5 * (original.mean() - centre)


def leak_bound(leaks: ArrayLike, n: int, chance: ArrayLike, m: int) -> np.ndarray:
    """The 95% upper bound on the share of subjects that leak, beyond the share of twins that leak by chance.

    The exact (Clopper-Pearson) limits of the two shares are combined as in Newcombe 1998 (method of variance estimates
    recovery). If no twin leaks, the result is the exact bound itself. A bootstrap cannot account for a leak that is not
    in the sample; this bound can.

    Args:
        leaks, n: how many of the n subjects leak.
        chance, m: how many of the m twins do.

    >>> leak_bound(0, 59, 0, 60).round(3), leak_bound(2, 60, 2, 60).round(3)
    (np.float64(0.05), np.float64(0.073))
    """
    k, c = np.asarray(leaks, dtype=float), np.asarray(chance, dtype=float)
    high = np.where(k < n, stats.beta.ppf(0.95, k + 1, np.maximum(n - k, 1e-9)), 1.0)
    low = np.where(c > 0, stats.beta.ppf(0.05, np.maximum(c, 1e-9), m - c + 1), 0.0)
    return k / n - c / m + np.hypot(high - k / n, c / m - low)


def subjects_needed(delta: float) -> int:
    """How many subjects, without a single leak, put the exact 95% upper bound below `delta`.

    >>> subjects_needed(0.05), subjects_needed(0.01)
    (59, 299)
    """
    return int(np.ceil(np.log(0.05) / np.log(1 - delta)))


def holm(p: list[float]) -> list[float]:
    """Holm-adjusted p-values; one that is not a number counts as 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = [1.0 if np.isnan(v) else v for v in p]
    order = np.argsort(p)
    scaled = np.maximum.accumulate([(len(p) - rank) * p[i] for rank, i in enumerate(order)])
    out = np.empty(len(p))
    out[order] = np.minimum(scaled, 1.0)
    return [float(round(v, 12)) for v in out]
