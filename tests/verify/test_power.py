"""Power and equivalence against simulation and the closed forms."""

import numpy as np
import pytest
from scipy import stats

from loka.verify.judge.power import equivalence, power, subjects_after, subjects_for
from loka.verify.judge.statistics import leak_bound, recovery, subjects_needed


@pytest.mark.parametrize(("n", "leak"), [(40, 0.0), (60, 0.02), (120, 0.05)])
def test_power_is_how_often_a_simulated_model_passes(n: int, leak: float) -> None:
    rng = np.random.default_rng(0)
    passed = [
        all(
            found is not None and found.upper < 0.1
            for found in (
                recovery((rng.random(n) < leak) * 1.0, np.ones(n), (rng.random(n) < leak) * 1.0, delta=0.1)
                for _ in range(2)
            )
        )
        for _ in range(150)
    ]
    assert power(n, delta=0.1, leak=leak, checks=2) == pytest.approx(np.mean(passed), abs=0.12)


def test_the_bound_on_leaks_is_exact_without_twins_that_leak_and_covers_with_them() -> None:
    for k, n in ((0, 59), (3, 60), (10, 40)):
        exact = stats.binomtest(k, n).proportion_ci(0.90, "exact").high
        assert leak_bound(k, n, 0, 60) == pytest.approx(exact)
    assert leak_bound(60, 60, 0, 60) == 1
    rng = np.random.default_rng(0)
    for target, chance in ((0.05, 0.05), (0.15, 0.05), (0.3, 0.1)):
        covers = leak_bound(rng.binomial(60, target, 4000), 60, rng.binomial(60, chance, 4000), 60) >= target - chance
        assert covers.mean() >= 0.94


def test_without_chance_leaks_it_is_the_exact_number() -> None:
    for delta in (0.05, 0.1, 0.139):
        n = subjects_for(delta=delta)
        assert n == subjects_needed(delta)
        assert power(n, delta=delta) == 1
        assert power(n - 1, delta=delta) == 0


def test_more_subjects_than_that_pass_too() -> None:
    n = subjects_for(delta=0.1, leak=0.02, checks=5)
    assert n is not None
    assert all(power(m, delta=0.1, leak=0.02, checks=5) >= 0.8 for m in range(n, n + 40))
    assert power(n - 1, delta=0.1, leak=0.02, checks=5) < 0.8
    assert subjects_for(delta=0.002) is None


def test_after_the_run_the_spread_says_how_many() -> None:
    spread = np.linspace(-0.6, 0.66, 30)
    ones, zeros = np.ones(30), np.zeros(30)
    few = recovery(spread, ones, zeros, delta=0.1)
    assert few is not None
    assert few.upper > 0.1
    n = subjects_after(few, 30, delta=0.1)
    assert n is not None
    enough, half = (recovery(np.resize(spread, m), np.ones(m), np.zeros(m), delta=0.1) for m in (4 * n // 3, n // 2))
    assert enough is not None
    assert half is not None
    assert half.upper > 0.1
    leaking = recovery(ones, ones, zeros, delta=0.1)
    assert leaking is not None
    assert subjects_after(leaking, 30, delta=0.1) is None


def test_equivalence_errs_as_often_as_it_says() -> None:
    """At the edge of the margin, one claim of twenty is false; well within it, almost every case is claimed."""
    rng = np.random.default_rng(2)
    edge = [equivalence(rng.normal(0.1, 0.1, 50), rng.normal(0, 0.1, 40), margin=0.1).p < 0.05 for _ in range(600)]
    same = [equivalence(rng.normal(0.0, 0.1, 50), rng.normal(0, 0.1, 40), margin=0.1).p < 0.05 for _ in range(200)]
    assert 0.03 <= np.mean(edge) <= 0.075
    assert np.mean(same) > 0.98


def test_equivalence_is_two_of_scipys_tests() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.05, 0.1, 30), rng.normal(0, 0.3, 50)
    above = stats.ttest_ind(a + 0.1, b, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(a - 0.1, b, equal_var=False, alternative="less").pvalue
    found, interval = equivalence(a, b, margin=0.1), stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    assert found.p == pytest.approx(max(above, below))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_equivalence_of_numbers_that_do_not_spread() -> None:
    zeros = np.zeros(30)
    assert equivalence(zeros, zeros, margin=0.1).p == 0
    assert equivalence(zeros + 0.2, zeros, margin=0.1).p == 1
    found = equivalence(np.array([0.1, 0.2, 0.3] * 10), zeros, margin=0.1)
    assert found.difference == pytest.approx(0.2)
    assert found.low < 0.2 < found.high
    assert found.p > 0.9
