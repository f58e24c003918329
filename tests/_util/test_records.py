"""Records from JSON and YAML: what does not fit is refused in one sentence."""

from dataclasses import dataclass

import pytest

from loka._util.errors import UserError
from loka._util.records import check_types, read_record


@dataclass(frozen=True)
class Inner:
    n: int


@dataclass(frozen=True)
class Outer:
    rate: float
    inner: Inner | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_types(self, "a record")


def test_what_fits_is_read_and_an_integer_may_be_a_float() -> None:
    assert read_record(Outer, {"rate": "1e-3", "inner": {"n": 2}, "names": ["a"]}, "a record") == Outer(
        1e-3, Inner(2), ("a",)
    )
    assert Outer(1).rate == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "a record lacks 'rate'; add it"),
        ({"rate": 1, "rat": 2}, "a record has no 'rat'; choose from rate, inner, names"),
        ({"rate": [1] * 10**6}, r"cannot have rate = \[1, 1, 1, 1, 1, 1, \.\.\.\]"),
        ([1], r"must map names to values, but it is \[1\]"),
        ({"rate": 1, "inner": {"n": "x"}}, "inner of a record cannot have n = 'x'"),
    ],
)
def test_what_does_not_fit_is_named(values: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_record(Outer, values, "a record")


@pytest.mark.parametrize(
    "wrong", [{"rate": "1"}, {"rate": None}, {"rate": 1, "inner": {"n": 1}}, {"rate": 1, "names": "ab"}]
)
def test_a_call_converts_nothing(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match="a record cannot have"):
        Outer(**wrong)  # type: ignore[arg-type]
