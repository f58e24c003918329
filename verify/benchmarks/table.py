"""The table of benchmarks, by the name of their format, and which of them a case is made from."""

from __future__ import annotations

from ...knowledge import Case
from .asked import sources
from .muse import MUSE
from .row import Benchmark
from .tofu import TOFU
from .wmdp import WMDP

BENCHMARKS: dict[str, Benchmark] = {"tofu": TOFU, "muse": MUSE, "wmdp": WMDP}


def makes(case: Case) -> dict[str, list[str]]:
    """The benchmarks that a case is made from, each with its sets to forget."""
    return {make: names for make, names in sources(case).items() if make in BENCHMARKS}


def from_benchmark(case: Case) -> bool:
    """Whether a case is made from a benchmark."""
    return bool(makes(case))
