"""The units of resampling: how samples name them, and what a model shows of each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..knowledge import Item
from .asking import asked

if TYPE_CHECKING:
    from ..model import Model


def unit_key(item: Item) -> str:
    """The name of an item's unit in samples: `relation/unit`."""
    return f"{item.relation}/{item.unit}"


def by_unit(items: Iterable[Item], values: Iterable[float]) -> dict[str, float]:
    """The mean of the items' values, by unit."""
    found: dict[str, list[float]] = {}
    for item, value in zip(items, values, strict=True):
        found.setdefault(unit_key(item), []).append(float(value))
    return {unit: values[0] if len(values) == 1 else float(np.mean(values)) for unit, values in found.items()}


def too_few(forget: Iterable[Item], twins: Iterable[Item]) -> str | None:
    """Why an attack that works on some units and asks the others cannot be made; `None` if it can."""
    for name, items in (("to forget", forget), ("as twins", twins)):
        if len(units := {unit_key(i) for i in items}) == 1:
            return (
                f"The case has one unit {name} ({units.pop()}); what works on some units and asks the others needs two."
            )
    return None


def halves(items: Sequence[Item], seed: int | str) -> Iterator[tuple[list[int], list[int]]]:
    """The places of the items of one half of the units and those of the other half, and then the other way round.

    The seed divides the units. What is chosen or trained on the first places is tested on the second ones.
    """
    units = list(dict.fromkeys(map(unit_key, items)))
    order = random.Random(f"{seed}/halves").sample(units, len(units))
    first = set(order[::2])
    sides = [[i for i, item in enumerate(items) if (unit_key(item) in first) is side] for side in (True, False)]
    yield sides[0], sides[1]
    yield sides[1], sides[0]


def recall_by_unit(
    model: Model, items: Sequence[Item], ask: Callable[[Model, Sequence[Item]], Sequence[float]] = asked
) -> dict[str, float]:
    """What each item is asked by, averaged over its prompts and then over the items of a unit, by `relation/unit`."""
    each = [one for item in items for one in item.each()]
    found = iter(ask(model, each)) if each else iter(())
    return by_unit(items, [float(np.mean([next(found) for _ in item.prompts])) for item in items])
