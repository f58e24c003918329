"""The sentence at the end of `loka locate`: selective only where the difference is beyond chance."""

import pandas as pd
import pytest

from loka.pipeline.selectivity import Overlap, Selectivity, _difference


def table(best: tuple[float, float, float | None], random: float) -> pd.DataFrame:
    rows = [
        {"name": "untouched", "sites": 0, "forget": 1.0, "same": 1.0, "other": 1.0},
        {"name": "best neurons", "sites": 50, **dict(zip(("forget", "same", "other"), best, strict=True))},
        {"name": "random", "sites": 50, "forget": random, "same": 1.0, "other": 1.0},
    ]
    return pd.DataFrame(rows).set_index("name")


OVERLAP = Overlap(5, 0.31, 0.12)
COUNTS = {"forget": 20, "same": 20, "other": 40}


def test_what_is_lost_alone_is_selective() -> None:
    worth = Selectivity.of(table((0.2, 0.9, 1.0), 1.0), "taylor", "neuron", COUNTS)
    assert worth.is_selective
    assert str(worth).startswith("These sites are selective: without the best 50 neuron sites, 80% of what is to be")
    assert "(without as many random ones 0%), 10% of what is nearest and 0% of other knowledge." in str(worth)


@pytest.mark.parametrize(
    ("best", "random"),
    [
        ((0.2, 0.4, 1.0), 1.0),  # the neighbours go, too
        ((0.2, 1.0, 0.2), 1.0),  # everything else goes, too
        ((0.2, 1.0, 1.0), 0.2),  # random sites do the same
        ((0.9, 1.0, 1.0), 1.0),  # two of twenty facts may be chance
        ((1.0, 1.0, 1.0), 1.0),
    ],
)
def test_what_is_lost_with_more_is_not_selective(best: tuple[float, float, float], random: float) -> None:
    worth = Selectivity.of(table(best, random), "taylor", "neuron", COUNTS)
    assert not worth.is_selective
    assert str(worth).startswith("These sites are not shown to be selective: ")
    assert str(worth).endswith("Try more items, another part (--part), or --method sweep.")


def test_groups_that_are_empty_are_left_out() -> None:
    worth = Selectivity.of(
        table((0.2, 1.0, None), 1.0), "taylor", "head", COUNTS | {"other": 0}, Overlap(5, 0.31, 0.12)
    )
    assert worth.is_selective
    assert "other knowledge" not in str(worth)
    assert str(worth).endswith(
        "Two ways to ask for an item share 31% of its best 5 head sites, two different items 12%."
    )


@pytest.mark.parametrize(
    ("shares", "expected"),
    [  # Newcombe 1998, Statistics in Medicine 17:873-890, table II, method 10
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((10, 10, 0, 10), (0.6075, 1.0)),
    ],
)
def test_the_interval_of_a_difference_is_the_published_one(
    shares: tuple[int, int, int, int], expected: tuple[float, float]
) -> None:
    a, n, b, m = shares
    assert _difference(a / n, n, b / m, m) == pytest.approx(expected, abs=1e-4)
