"""The benchmarks' metrics in closed form: TOFU, ROUGE, PrivLeak."""

import math

import pytest

from loka import verify
from loka._util.errors import UserError
from loka.verify.metrics.tofu import SETS


def test_forget_quality_is_the_exact_test() -> None:
    apart = verify.tofu_forget_quality([1, 2, 3], [4, 5, 6])
    assert apart.distance == 1
    assert apart.p == pytest.approx(2 / math.comb(6, 3))
    assert verify.tofu_forget_quality([1, 2, 3], [3, 1, 2]).p == 1
    inverses = verify.tofu_forget_quality([1 / 1, 1 / 2, 1 / 3], [1 / 4, 1 / 5, 1 / 6])
    assert inverses == apart


def test_the_peers_epsilon_makes_ties() -> None:
    small, smaller = [1e-30, 1e-31, 1e-32], [1e-33, 1e-34, 1e-35]
    assert verify.tofu_forget_quality(small, smaller).p == pytest.approx(0.1)
    assert verify.tofu_forget_quality(small, smaller, convention="open-unlearning").p == 1


def test_model_utility_is_a_harmonic_mean() -> None:
    assert verify.tofu_model_utility([0.5, 0.25]) == pytest.approx(1 / 3)
    assert verify.tofu_model_utility([0.5, 0.0]) == 0
    for values in ([], [0.5, -0.1]):
        with pytest.raises(UserError, match="at least one number, and none below zero"):
            verify.tofu_model_utility(values)


def log(correct: float, wrong: list[float], rouge: float) -> dict[str, list]:
    losses = [-math.log(p) for p in wrong]
    return {
        "avg_gt_loss": [-math.log(correct)] * 3,
        "avg_paraphrased_loss": [-math.log(correct / 2)] * 3,
        "average_perturb_loss": [losses] * 3,
        "rougeL_recall": [rouge] * 3,
    }


def test_the_report_follows_the_paper_and_by_convention_the_code() -> None:
    logs = {file: log(0.8, [0.1, 0.3], 0.5) for file in SETS.values()}
    found = verify.tofu_report(logs)
    assert found.forget_quality is None
    assert found.values["Prob. Real World"] == pytest.approx(0.8 / 1.2)
    assert found.values["Prob. Retain"] == pytest.approx(0.8)
    assert found.values["Truth Ratio Retain"] == pytest.approx(1 - 0.2 / 0.4)
    assert found.values["Truth Ratio Forget"] == pytest.approx(0.2 / 0.4)
    assert found.model_utility == pytest.approx(9 / (2 / (0.8 / 1.2) + 1 / 0.8 + 3 / 0.5 + 3 / 0.5))
    theirs = verify.tofu_report(logs, logs, convention="tofu")
    assert theirs.values["Truth Ratio Forget"] == pytest.approx(math.sqrt(0.03) / 0.4)
    assert theirs.forget_quality is not None
    assert theirs.forget_quality.p == 1


def test_a_missing_log_is_named() -> None:
    logs = {file: log(0.8, [0.1], 0.5) for file in SETS.values()}
    with pytest.raises(UserError, match="The logs lack eval_log.json; they need"):
        verify.tofu_report({k: v for k, v in logs.items() if k != "eval_log.json"})
    with pytest.raises(UserError, match="The retain model's logs lack eval_log_forget.json"):
        verify.tofu_report(logs, {})


def test_rouge_recall_is_relative_to_the_truth() -> None:
    found = verify.rouge("The capital is Paris, they were writing", "Paris is the CAPITAL")
    assert found.rouge1_recall == 1
    assert found.rougeL_recall == pytest.approx(2 / 4)  # "the capital"
    assert found.rougeL_f1 == pytest.approx(2 * (2 / 4) * (2 / 7) / (2 / 4 + 2 / 7))
    assert verify.rouge("she writes", "writing").rouge1_recall == 1
    assert verify.rouge("", "Paris") == verify.Rouge(0, 0, 0)


def test_a_generation_ends_at_the_first_stop() -> None:
    assert verify.cut(" Paris.\nQ: and Rome?<end> more", ["<end>", "\nQ:"]) == "Paris."
    assert verify.cut(" Paris ", []) == "Paris"


def test_only_the_leading_prompt_goes() -> None:
    text = "the fox and the fox runs"
    assert verify.without_prompt(text, "the fox") == "and the fox runs"
    assert verify.without_prompt(text, "the fox", convention="open-unlearning") == "and  runs"


def test_privleak_is_positive_where_something_is_left() -> None:
    assert verify.privleak(0.75, 0.5) == verify.privleak(0.75) == pytest.approx(50)
    assert verify.privleak(0.4, 0.5) == pytest.approx(-20)
    assert verify.privleak(0.75, 0.6, convention="muse") == pytest.approx(100 * (0.25 - 0.4) / 0.4)
    ours, theirs = (verify.privleak(0.75, 0.6, convention=c) for c in ("muse", "open-unlearning"))
    assert theirs == pytest.approx(ours)
    assert verify.relative_difference(0.3, 0.0) == math.inf
    assert verify.relative_difference(0.0, 0.0) == 0
    with pytest.raises(UserError, match="stated, muse, open-unlearning"):
        verify.privleak(0.5, convention="mimir")
