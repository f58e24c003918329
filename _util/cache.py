"""Expensive results, cached by the content that they depend on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T")
MOST = 16


class Cache:
    """Results by kind and key. Of each kind, the `most` recently used stay; older ones are made again.

    A key names all that its result depends on, by digests of content, so that no key leads to a stale result.

    >>> cache = Cache(most=1)
    >>> [cache.get("square", n, lambda n=n: n * n) for n in (2, 3, 2)]
    [4, 9, 4]
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._kinds: dict[str, OrderedDict[Hashable, object]] = {}

    def get(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """The result of this kind for this key, made if it is not there."""
        results = self._kinds.setdefault(kind, OrderedDict())
        if key not in results:
            results[key] = make()
        results.move_to_end(key)
        while len(results) > self.most:
            results.popitem(last=False)
        return results[key]  # type: ignore[return-value]

    def __contains__(self, kind_and_key: tuple[str, Hashable]) -> bool:
        kind, key = kind_and_key
        return key in self._kinds.get(kind, ())
