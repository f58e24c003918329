"""The rule of the verdict, on readings with known outcomes."""

from collections.abc import Sequence

import numpy as np
import pytest

from loka.verify import CHECKS, Reading, Summary, judge, make_reading, scorecard
from loka.verify.judge.statistics import holm, interval, recovery, subjects_needed

GOOD = {
    "retain_same_before": 0.9, "retain_same_after": 0.89, "perplexity_before": 20.0, "perplexity_after": 20.1,
    "shallow_r": 0.7, "forget_before": 0.9, "shallow_forget_after": 0.1,
}  # fmt: skip
REQUIRED = tuple(check.name for check in CHECKS if check.required)


def made(check: str, forget: float, twins: float = 0.0, *, n: int = 60, leaks: int = 0) -> Reading:
    """A reading where the first `leaks` subjects read 1 and all others read `forget`."""
    values = [1.0] * leaks + [forget] * (n - leaks)
    samples = {
        "forget": {f"r/{i:02}": v for i, v in enumerate(values)},
        "twins": {f"r/t{i:02}": twins for i in range(n)},
    }
    return make_reading(check, samples, "made up")


def outcome(
    recall: float, relearn: float, *, n: int = 60, leaks: int = 0, before: float = 1.0,
    inside: tuple[str, float] | None = None, attacks: Sequence[str] = REQUIRED, **summary: object,
):  # fmt: skip
    others = [a for a in attacks if a != "relearn"]
    readings = {
        "before": {c: made(c, before, n=n) for c in ("recall", *attacks)},
        "after": {"recall": made("recall", recall, n=n), **{c: made(c, 0.0, n=n) for c in others}},
    }
    if "relearn" in attacks:
        readings["after"]["relearn"] = made("relearn", relearn, n=n, leaks=leaks)
    if inside:
        check, value = inside
        readings["before"][check], readings["after"][check] = made(check, before, n=n), made(check, value, n=n)
    return judge(readings, scorecard=scorecard(recall, 0.95, None), summary=Summary(**{**GOOD, **summary}))


def test_intact_when_it_still_answers() -> None:
    assert outcome(1.0, 1.0).outcome == "intact"


def test_suppressed_when_an_attack_brings_it_back() -> None:
    verdict = outcome(0.0, 0.5)
    assert verdict.outcome == "suppressed"
    assert "relearn" in verdict.claim


def test_removed_needs_enough_subjects() -> None:
    assert outcome(0.0, 0.0, n=60).outcome == "removed"
    few = outcome(0.0, 0.0, n=18)
    assert few.outcome == "inconclusive"
    assert "60 subjects" in few.claim


def test_the_required_attacks_are_those_of_the_design() -> None:
    assert sorted(REQUIRED) == [
        "benign", "direction_ablation", "mask", "paraphrase", "quantize", "relearn", "spectral",
    ]  # fmt: skip
    assert all(check.role == "attack" and check.profile != "full" for check in CHECKS if check.required)


@pytest.mark.parametrize("missing", REQUIRED)
def test_nothing_is_removed_before_every_required_attack_was_made(missing: str) -> None:
    verdict = outcome(0.0, 0.0, attacks=[a for a in REQUIRED if a != missing])
    assert verdict.outcome == "inconclusive"
    assert verdict.claim == (
        "Nothing was found by the checks that were made. They are too few to claim a removal, which also needs "
        f"{missing}."
    )
    assert outcome(0.0, 0.5, attacks=["relearn"]).outcome == "suppressed", "one attack is enough to convict"


def test_a_few_leaks_are_neither_removed_nor_suppressed() -> None:
    assert outcome(0.0, 0.0, n=60, leaks=4).outcome == "inconclusive"


@pytest.mark.parametrize(("check", "level"), [("probe", 0.1), ("logit_lens", 0.1), ("depth", 0.5)])
def test_what_is_still_read_inside_forbids_a_removal(check: str, level: float) -> None:
    """Depth also depends on the original's later weights, so its threshold is half of the answers."""
    assert outcome(0.0, 0.0, inside=(check, level - 0.02)).outcome == "removed"
    verdict = outcome(0.0, 0.0, inside=(check, level + 0.02))
    assert verdict.outcome == "inconclusive"
    assert f"{check} can still read them" in verdict.claim


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"before": 0.2}, "original knew"),
        ({"n": 8}, "independent subjects"),
        ({"shallow_r": 0.4}, "shallow sibling"),
        ({"shallow_r": None}, "shallow sibling"),
        ({"shallow_forget_after": 0.5}, "the shallow sibling hides"),
        ({"shallow_forget_after": None}, "the shallow sibling hides"),
        ({"retain_same_after": 0.5}, "retained facts"),
        ({"perplexity_after": 30.0}, "neutral text"),
    ],
)
def test_each_gate_forbids_a_verdict(change: dict[str, object], gate: str) -> None:
    assert outcome(0.0, 0.5).outcome != "inconclusive", "without the change there is a verdict"
    verdict = outcome(0.0, 0.0, **change)  # type: ignore[arg-type]
    assert verdict.outcome == "inconclusive"
    assert gate in verdict.claim
    assert [g.passed for g in verdict.gates].count(False) == 1


def test_a_weak_attack_that_succeeds_is_evidence_all_the_same() -> None:
    """If an attack cannot expose the shallow sibling, it cannot support a removal; what it brings back still counts."""
    assert outcome(0.0, 0.0, shallow_r=0.4).outcome == "inconclusive"
    verdict = outcome(0.0, 0.5, shallow_r=0.4)
    assert verdict.outcome == "suppressed"
    assert any("weak attack" in r and "shallow sibling" in r for r in verdict.reasons)
    assert outcome(1.0, 1.0, shallow_r=None).outcome == "intact"
    assert outcome(0.0, 0.5, shallow_forget_after=0.8).outcome == "suppressed"


def test_too_aggressive_is_flagged() -> None:
    assert not outcome(0.0, 0.0).flags
    assert any("too_aggressive" in f for f in outcome(0.0, 0.0, retain_same_after=0.85).flags)


def test_recovery_scale() -> None:
    ones, zeros = np.ones(40), np.zeros(40)
    intact = recovery(ones, ones, zeros, delta=0.1)
    gone = recovery(zeros, ones, zeros, delta=0.1)
    assert intact is not None
    assert gone is not None
    assert (intact.r, gone.r) == (1.0, 0.0)
    assert intact.p < 0.01 < 0.9 < gone.p
    assert gone.upper == pytest.approx(1 - 0.05 ** (1 / 40)), "no leak in 40: the exact bound"
    assert recovery(zeros, zeros, ones, delta=0.1) is None, "no scale where the original knows less than twins"


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.02, 0.03]) == [0.03, 0.04, 0.04]


def test_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = [low <= 0.5 <= high for low, high in (interval(rng.random(40), seed=i) for i in range(200))]
    assert 0.9 < np.mean(hits) < 0.99


def test_power() -> None:
    assert [subjects_needed(d) for d in (0.139, 0.05, 0.01)] == [21, 59, 299]


@pytest.mark.parametrize(
    ("forget", "retain", "quality"),
    [(0.09, 0.91, "excellent"), (0.09, 0.9, "good"), (0.29, 0.81, "good"), (0.3, 0.95, "insufficient")],
)
def test_forget_quality_at_the_borders(forget: float, retain: float, quality: str) -> None:
    assert scorecard(forget, retain, None).forget_quality == quality


@pytest.mark.parametrize(
    ("auc", "label"), [(0.54, "minimal"), (0.44, "moderate"), (0.64, "moderate"), (0.3, "significant")]
)
def test_privacy_leakage_at_the_borders(auc: float, label: str) -> None:
    assert scorecard(0.0, 1.0, auc).privacy_leakage == label
