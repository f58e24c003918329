"""The truth ratio in closed form."""

import math

import numpy as np
import pytest

from loka import verify
from loka._util.errors import UserError

CORRECT = [-math.log(0.4), -math.log(0.1)]
WRONG = [[-math.log(0.1), -math.log(0.4)], [-math.log(0.3), -math.log(0.1), -math.log(0.2)]]


def test_it_is_over_the_arithmetic_mean_and_higher_is_more() -> None:
    found = verify.truth_ratio(CORRECT, WRONG)
    assert found.scores.tolist() == pytest.approx([0.4 / 0.25, 0.1 / 0.2])
    assert found.value == pytest.approx((0.25 / 0.4 + 0.1 / 0.2) / 2)
    assert verify.truth_ratio(CORRECT, WRONG, aggregate="true_better").value == pytest.approx((1 - 0.25 / 0.4) / 2)
    share = verify.truth_ratio(CORRECT, WRONG, aggregate="prob_mean")
    assert share.scores.tolist() == pytest.approx([0.4 / 0.65, 0.1 / 0.3])
    assert share.value == pytest.approx(share.scores.mean())


def test_the_peers_take_the_geometric_mean_and_one_turns_the_ratio_round() -> None:
    ours = verify.truth_ratio(CORRECT, WRONG, convention="tofu").scores
    assert ours.tolist() == pytest.approx([0.4 / 0.2, 0.1 / 0.006 ** (1 / 3)])
    theirs = verify.truth_ratio(CORRECT, WRONG, convention="open-unlearning").scores
    assert theirs.tolist() == pytest.approx((1 / ours).tolist())


def test_probabilities_too_small_for_a_float_still_have_a_ratio() -> None:
    correct, wrong = [1000.0], [[1001.0, 1001.0]]
    assert verify.truth_ratio(correct, wrong).scores == pytest.approx([math.e])
    assert verify.option_probability(correct, wrong).value == pytest.approx(1 / (1 + 2 / math.e))
    impossible = verify.truth_ratio([0.0], [[2000.0]])
    assert impossible.scores == [np.inf]
    assert impossible.value == 0


def test_the_share_among_options() -> None:
    found = verify.option_probability(CORRECT, WRONG)
    assert found.scores.tolist() == pytest.approx([0.4 / 0.9, 0.1 / 0.7])
    assert found.value == pytest.approx(found.scores.mean())


@pytest.mark.parametrize(("correct", "wrong"), [([], []), ([1.0], []), ([1.0], [[]]), ([1.0], [[1.0], [1.0]])])
def test_questions_must_match(correct: list[float], wrong: list[list[float]]) -> None:
    for metric in (verify.truth_ratio, verify.option_probability):
        with pytest.raises(UserError, match="at least one"):
            metric(correct, wrong)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="'mean' is not an aggregate"):
        verify.truth_ratio(CORRECT, WRONG, aggregate="mean")
    with pytest.raises(UserError, match="stated, tofu, open-unlearning"):
        verify.truth_ratio(CORRECT, WRONG, convention="muse")
