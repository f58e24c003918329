"""Results that are expensive to make, held by the content that they depend on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T")
MOST = 16


class Cache:
    """Results by kind and key. Of each kind the `most` recently used are held; older ones are made again.

    A key names all that its result depends on, by digests of content, so that a stale result has no name.

    >>> cache = Cache(most=1)
    >>> [cache.get("square", n, lambda n=n: n * n) for n in (2, 3, 2)]
    [4, 9, 4]
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._kinds: dict[str, OrderedDict[Hashable, object]] = {}

    def get(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """The result of that kind for that key, made if it is not held."""
        held = self._kinds.setdefault(kind, OrderedDict())
        if key not in held:
            held[key] = make()
        held.move_to_end(key)
        while len(held) > self.most:
            held.popitem(last=False)
        return held[key]  # type: ignore[return-value]

    def __contains__(self, kind_and_key: tuple[str, Hashable]) -> bool:
        kind, key = kind_and_key
        return key in self._kinds.get(kind, ())
