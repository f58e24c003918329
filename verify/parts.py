"""Checks in parts, such as folds, that can be run apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from .reading import Reading

if TYPE_CHECKING:
    from ..model import Model


class Parts(Protocol):
    """A check on a case, in parts that depend on nothing but the model. Any process may run them, in any order."""

    @property
    def names(self) -> tuple[str, ...]:
        """The parts, in the order in which one process runs them. A name stands for the same work in every profile."""
        ...

    def run(self, model: Model, name: str) -> JsonValue:
        """What a part found, as plain JSON; a file has `None` in place of NaN."""
        ...

    def join(self, model: Model, found: Mapping[str, JsonValue]) -> Reading:
        """The reading, from what every part found. `model` serves to count tokens only."""
        ...


def run_all(parts: Parts, model: Model, progress: Callable[[int, int], None] | None = None) -> Reading:
    """The reading of all parts, run here one after the other."""
    found: dict[str, JsonValue] = {}
    for name in parts.names:
        found[name] = parts.run(model, name)
        if progress:
            progress(len(found), len(parts.names))
    return parts.join(model, found)
