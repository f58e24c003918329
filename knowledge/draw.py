"""Wrong answers drawn from a pool, at the cost of those that are drawn and not of the pool."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Collection, Sequence


def draw(pool: Sequence[str], n: int, rng: random.Random, *, without: Collection[str]) -> tuple[str, ...]:
    """Up to `n` of a sorted pool of distinct answers at random, without some.

    They are those that `rng.sample(sorted(set(pool) - set(without)), n)` gives.

    >>> draw(["a", "b", "c", "d"], 2, random.Random(0), without=["b"])
    ('c', 'd')
    >>> random.Random(0).sample(["a", "c", "d"], 2)
    ['c', 'd']
    """
    places = ((answer, bisect_left(pool, answer)) for answer in set(without))
    gone = sorted(i for answer, i in places if i < len(pool) and pool[i] == answer)
    left = len(pool) - len(gone)
    return tuple(pool[_shifted(i, gone)] for i in rng.sample(range(left), min(n, left)))


def _shifted(place: int, gone: Sequence[int]) -> int:
    """The place in the whole pool of a place among what is left."""
    for i in gone:
        place += place >= i
    return place
