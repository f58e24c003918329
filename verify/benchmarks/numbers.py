"""A benchmark's numbers about one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import JsonValue

Samples = dict[str, dict[str, float]]


@dataclass(frozen=True)
class BenchmarkNumbers:
    """One benchmark's numbers about one model.

    `values`: by name; `None` stands for what was not measured, and `missing` says why. `sets`: the sets of the case
    that each of the benchmark's own sets was read from. `compared`: what a comparison with another model needs, such as
    truth ratios.
    """

    values: dict[str, float | None]
    missing: dict[str, str] = field(default_factory=dict)
    sets: dict[str, list[str]] = field(default_factory=dict)
    compared: dict[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, JsonValue]:
        """All of it, as plain dictionaries, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue]) -> BenchmarkNumbers:
        """Read what `to_json` wrote."""
        fields: Any = dict(data)
        return cls(**fields)


@dataclass(frozen=True)
class Measured:
    """A benchmark's numbers, and what the items to forget and to retain show in its own measure, by unit."""

    numbers: BenchmarkNumbers
    samples: Samples


def reasons(values: Mapping[str, float | None], why: Mapping[str, str]) -> dict[str, str]:
    """The reason for each number that was not measured."""
    return {name: why[name] for name, value in values.items() if value is None}
