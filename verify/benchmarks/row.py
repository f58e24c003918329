"""The record of a benchmark: what it asks of a case, how it measures, and what its numbers are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ...knowledge import Case
from .asked import Groups
from .numbers import BenchmarkNumbers, Measured

if TYPE_CHECKING:
    from ...model import Model


@dataclass(frozen=True)
class Benchmark:
    """One row of the table of benchmarks.

    Attributes:
        title: its name in sentences and tables.
        labels: what each of its numbers is, by name, in the order of its tables.
        leads: the numbers that people quote.
        groups: the records of a case that it asks, by the benchmark's own sets.
        measure: asks a model.
        rows: the cost of asking, in forward passes of one row.
        against: the numbers that need a reading of a model trained without the forget set, from both readings.
    """

    title: str
    labels: dict[str, str]
    leads: tuple[str, ...]
    groups: Callable[[Case], Groups] = field(repr=False)
    measure: Callable[[Model, Groups], Measured] = field(repr=False)
    rows: Callable[[Groups], float] = field(repr=False)
    against: Callable[[BenchmarkNumbers, BenchmarkNumbers], dict[str, float]] = field(repr=False)

    def completed(self, own: BenchmarkNumbers, gold: BenchmarkNumbers | None) -> BenchmarkNumbers:
        """The numbers with those that a retrained model's reading adds, if there is one."""
        more = {} if gold is None else self.against(own, gold)
        missing = {name: why for name, why in own.missing.items() if name not in more}
        return replace(own, values=own.values | more, missing=missing)

    def meaning(self, numbers: BenchmarkNumbers) -> str:
        """The numbers that people quote, as a sentence."""
        values = ((self.labels[name], numbers.values[name]) for name in self.leads)
        listed = (f"{label} {'not measured' if v is None else format(v, '.2f')}" for label, v in values)
        return f"{self.title}: {', '.join(listed)}."
