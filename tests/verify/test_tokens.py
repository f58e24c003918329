"""The token metrics in closed form, on rows with known right and wrong tokens."""

import math

import pytest
import torch
from torch import Tensor

from loka import verify
from loka._util.errors import UserError

VOCABULARY = 5


def rows(*patterns: str) -> tuple[Tensor, Tensor]:
    """Logits and labels for patterns such as ".+-": no label, a right and a wrong one; the likeliest token has half."""
    labels = torch.full((len(patterns), max(map(len, patterns))), -100)
    scores = torch.zeros(*labels.shape, VOCABULARY)
    for i, pattern in enumerate(patterns):
        for t, sign in enumerate(pattern):
            if sign != ".":
                labels[i, t] = 2
                scores[i, t, 2 if sign == "+" else 3] = math.log(VOCABULARY - 1)
    return scores, labels


def test_probability_is_normalised_by_length() -> None:
    scores, labels = rows("..++", "...-", "-+..")
    assert verify.probability(scores, labels).tolist() == pytest.approx([1 / 2, 1 / 8, 1 / 4])
    assert verify.answer_loss(scores, labels)[0] == pytest.approx(math.log(2))
    assert [len(row) for row in verify.answer_logprobs(scores, labels)] == [2, 1, 2]


@pytest.mark.parametrize(
    ("pattern", "memorized", "strength", "peer_memorized", "peer_strength"),
    [
        ("++++", 1, 1, 1, 1),
        ("-+++", 3 / 4, 3 / 4, 2 / 3, 2 / 3),
        ("++-+", 3 / 4, 1 / 4, 2 / 3, 1 / 3),
        ("+++-", 3 / 4, 0, 1, 1),
        ("----", 0, 0, 0, 1 / 3),
        (".+-.", 1 / 2, 0, 1, 1),
        ("...+", 1, 1, math.nan, 0),
        ("....", math.nan, math.nan, math.nan, 0),
    ],
)
def test_the_last_label_counts_and_strength_reaches_zero(
    pattern: str, memorized: float, strength: float, peer_memorized: float, peer_strength: float
) -> None:
    batch = rows("+" * 4, pattern)  # a second row, so that rows do not run into each other
    peer = {"convention": "open-unlearning"}
    found = [
        verify.exact_memorization(*batch)[1],
        verify.extraction_strength(*batch)[1],
        verify.exact_memorization(*batch, **peer)[1],
        verify.extraction_strength(*batch, **peer)[1],
    ]
    assert found == pytest.approx([memorized, strength, peer_memorized, peer_strength], nan_ok=True)


def test_half_precision_is_scored_in_single() -> None:
    scores, labels = rows("+-+-")
    exact = verify.answer_loss(scores.bfloat16().float(), labels)
    assert verify.answer_loss(scores.bfloat16(), labels).tolist() == exact.tolist()


@pytest.mark.parametrize("metric", [verify.answer_logprobs, verify.exact_memorization, verify.extraction_strength])
def test_an_unknown_convention_is_refused(metric) -> None:
    with pytest.raises(UserError, match="'theirs' is not a convention .* stated, open-unlearning"):
        metric(*rows("++"), convention="theirs")
