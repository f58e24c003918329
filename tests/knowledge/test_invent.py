"""Invented subjects sound like the real ones and are none of them."""

import random

import pytest

from loka._util.errors import UserError
from loka.knowledge import case
from loka.knowledge.invent import invent

REAL = list(case("capitals").relations["capital"].facts)


def test_as_many_as_asked_none_real_none_twice() -> None:
    names = invent(REAL, 60, random.Random(0))
    assert len({n.casefold() for n in names}) == 60
    real = {r.casefold() for r in REAL}
    for name in names:
        assert 4 <= len(name) <= 14
        assert not any(name.casefold() in r or r in name.casefold() for r in real)


def test_the_same_seed_invents_the_same() -> None:
    assert invent(REAL, 20, random.Random(3)) == invent(REAL, 20, random.Random(3))
    assert invent(REAL, 20, random.Random(3)) != invent(REAL, 20, random.Random(4))


def test_they_sound_real() -> None:
    """Every three letters in a row occur in a real name, or two of them do."""
    pairs = {a.casefold()[i : i + 2] for a in REAL for i in range(len(a) - 1)}
    for name in invent(REAL, 60, random.Random(0)):
        plain = name.casefold()
        assert all(plain[i : i + 2] in pairs for i in range(len(plain) - 1)), name


def test_too_few_names_to_learn_from_are_said() -> None:
    with pytest.raises(UserError, match=r"only \d of 30 twins could be invented; name them in the case file"):
        invent(["Abcd", "Abce"], 30, random.Random(0))
