"""Numbers that are not finite: found, named and taken out, so that none of them passes for a measurement."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

Place = tuple[str, ...]
Strange = tuple[Place, float]


def without_strange(value: Any, at: Place = ()) -> tuple[Any, list[Strange]]:
    """The value with `None` in the place of each number that is not finite, and where these stand.

    >>> without_strange({"a": [1.0, float("nan")], "b": 2})
    ({'a': [1.0, None], 'b': 2}, [(('a', '1'), nan)])
    """
    if isinstance(value, float):
        return (value, []) if math.isfinite(value) else (None, [(at, float(value))])
    if isinstance(value, Mapping):
        parts = {key: without_strange(v, (*at, str(key))) for key, v in value.items()}
        return {key: v for key, (v, _) in parts.items()}, [s for _, found in parts.values() for s in found]
    if isinstance(value, list | tuple):
        listed = [without_strange(v, (*at, str(i))) for i, v in enumerate(value)]
        return type(value)(v for v, _ in listed), [s for _, found in listed for s in found]
    return value, []


def named(found: Iterable[Strange]) -> list[str]:
    """Strange numbers in words; those of units (`relation/unit`) are counted by group, so that no unit is named.

    >>> named([(("forget", "capital/Kenya"), float("nan")), (("forget", "capital/Peru"), float("nan"))])
    ['forget is nan for 2 units']
    """
    counts = Counter((at[:-1] if "/" in at[-1] else at, "/" in at[-1], str(value)) for at, value in found)
    return [
        f"{' '.join(at)} is {value}" + (f" for {n} unit{'s' if n > 1 else ''}" if units else "")
        for (at, units, value), n in counts.items()
    ]
