"""Invent subjects that do not exist but sound like those that do."""

from __future__ import annotations

import random
from collections import defaultdict

from .._util.errors import UserError

_ORDER = 3
_TRIES = 10_000  # for one name; then the real ones give no more


def invent(real: list[str], n: int, rng: random.Random) -> list[str]:
    """`n` names from a Markov chain of order three over the letters of real ones; all are new and distinct.

    Raises:
        UserError: the real names are too few or too alike to invent that many from.

    >>> names = invent(["Kenya", "Malawi", "Mali", "Tanzania", "Gambia", "Zambia"], 3, random.Random(0))
    >>> len(set(names)), any(name in "Kenya Malawi Mali" for name in names)
    (3, False)
    """
    singles = [name for name in real if name.isalpha() and len(name) > 3] or real
    follow: dict[str, list[str]] = defaultdict(list)
    for name in singles:
        padded = "^" * _ORDER + name + "$"
        for i in range(_ORDER, len(padded)):
            for order in (_ORDER, _ORDER - 1):
                follow[padded[i - order : i]].append(padded[i])
    taken = {name.casefold() for name in real}
    names: list[str] = []
    tries = 0
    while len(names) < n and tries < _TRIES:
        name, tries = _walk(follow, rng), tries + 1
        near = any(name.casefold() in other or other in name.casefold() for other in taken)
        if 4 <= len(name) <= 14 and not near:
            names.append(name)
            taken.add(name.casefold())
            tries = 0
    if len(names) == n:
        return names
    raise UserError(f"only {len(names)} of {n} twins could be invented; name them in the case file's `twins` list.")


def _walk(follow: dict[str, list[str]], rng: random.Random) -> str:
    text = "^" * _ORDER
    while not text.endswith("$") and len(text) < 24:
        order = _ORDER if rng.random() < 0.6 else _ORDER - 1
        text += rng.choice(follow.get(text[-order:]) or follow.get(text[-_ORDER:]) or ["$"])
    return text.strip("^$")
