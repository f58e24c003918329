"""Intervals of two groups: against exact tests, a published example, and by how often they hold."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from loka.verify.judge.two_groups import Limits, auc_limits, lead, limits

Draw = Callable[[np.random.Generator, int], np.ndarray]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (0, 16), (3, 47), (28, 28), (5, 10)])
def test_shares_have_exact_limits(right: int, n: int) -> None:
    exact = stats.binomtest(right, n).proportion_ci(0.98, "exact")
    found = limits([1.0] * right + [0.0] * (n - right), level=0.98)
    assert (found.value, found.low, found.high) == pytest.approx((right / n, exact.low, exact.high))


def test_the_difference_of_two_shares_as_published() -> None:
    """Newcombe 1998, Statistics in Medicine 17:873, table II: 56 of 70 against 48 of 80 by Wilson's limits."""

    def wilson(right: int, n: int) -> Limits:
        found = stats.binomtest(right, n).proportion_ci(method="wilson")
        return Limits(right / n, found.low, found.high)

    found = lead(wilson(56, 70), wilson(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda rng, n: rng.beta(0.2, 2, n), 0.2 / 2.2),
        (lambda rng, n: rng.beta(2, 2, n), 0.5),
        (lambda rng, n: np.where(rng.random(n) < 0.05, rng.uniform(0.5, 1, n), 0.0), 0.0375),
        (lambda rng, n: rng.binomial(5, 0.1, n) / 5, 0.1),
    ],
    ids=["skewed", "even", "mostly zero", "fifths"],
)
@pytest.mark.parametrize("n", [2, 8, 50])
def test_a_mean_lies_within_its_limits_often_enough(rng: np.random.Generator, draw: Draw, mean: float, n: int) -> None:
    found = [limits(draw(rng, n).tolist()) for _ in range(1000)]
    assert np.mean([each.low <= mean <= each.high for each in found]) > 0.94
    assert all(each.low <= each.value <= each.high for each in found)


def test_limits_are_of_use_where_values_are_close(rng: np.random.Generator) -> None:
    found = limits(rng.beta(20, 60, 200).tolist())
    assert found.high - found.low < 0.03


def test_the_auc_agrees_with_the_rank_test_at_one_half(rng: np.random.Generator) -> None:
    members, others = rng.normal(0.5, 1, 16), rng.normal(0, 1, 40)
    p = stats.mannwhitneyu(members, others, use_continuity=False, method="asymptotic").pvalue
    auc = roc_auc_score([1] * 16 + [0] * 40, [*members, *others])
    assert auc_limits(auc, 16, 40, level=1 - p).low == pytest.approx(0.5)


def test_an_auc_lies_within_its_limits_often_enough(rng: np.random.Generator) -> None:
    for shift in (0.0, 1.0, 2.0):
        true, held = stats.norm.cdf(shift / np.sqrt(2)), 0
        for _ in range(400):
            auc = (rng.normal(shift, 1, 16)[:, None] > rng.normal(0, 1, 40)).mean()
            found = auc_limits(float(auc), 16, 40)
            held += found.low <= true <= found.high
        assert held / 400 > 0.92, shift


def test_an_auc_of_one_is_not_certain() -> None:
    assert auc_limits(1.0, 16, 40).high == 1.0
    assert 0.8 < auc_limits(1.0, 16, 40).low < auc_limits(1.0, 100, 400).low < 1
    assert auc_limits(0.0, 16, 40).high == pytest.approx(1 - auc_limits(1.0, 16, 40).low)
