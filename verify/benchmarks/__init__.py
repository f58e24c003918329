"""What published benchmarks report, for cases that are made from their data. A new benchmark is one file and one row.

Questions are asked by their original text. Only those are asked that the case forgets or retains: the ones that the
original model knew.
"""

from .check import benchmark, benchmark_cost
from .numbers import BenchmarkNumbers
from .results import benchmarks_of, numbers_of, tofu_quality, unmeasured
from .row import Benchmark
from .table import BENCHMARKS, from_benchmark, makes

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "BenchmarkNumbers",
    "benchmark",
    "benchmark_cost",
    "benchmarks_of",
    "from_benchmark",
    "makes",
    "numbers_of",
    "tofu_quality",
    "unmeasured",
]
