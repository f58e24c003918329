"""The check `benchmark`: the numbers of the benchmarks that a case is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...knowledge import Case, accepts_spec
from ..check import Setting
from ..reading import Reading, make_reading, refusal
from .table import BENCHMARKS, makes

if TYPE_CHECKING:
    from ...model import Model


@accepts_spec
def benchmark(model: Model, case: Case) -> Reading:
    """The numbers of the benchmarks that a case is made from; `details` has a `BenchmarkNumbers` for each.

    A case is made from a benchmark if one of its sets to forget has that format, or names it as its `make`. The reading
    is refused for any other case.

    The value is what the items to forget show in the benchmark's own measure: ROUGE-L for TOFU and MUSE, accuracy for
    WMDP.

    - TOFU: probability, ROUGE-L recall and truth ratio on its four sets, and model utility, all as the paper defines
      them. The near retain sets are its retain set, the other ones its real authors and world facts. Where a source has
      no wrong answers, answers to other questions take their place. Utility is the harmonic mean over the sets that
      there are. Forget quality needs a retrained model (`tofu_quality`).
    - MUSE: ROUGE-L F1 of continuations (`verbmem`) and of answers (`knowmem`) without examples in the prompt, and the
      privacy leakage of the min-40% attack, positive where something is left.
    - WMDP: accuracy by the options' texts, and by their letters as lm-evaluation-harness asks.

    Cost: one row for each answer, wrong answer, option, free answer and passage.
    """
    found = {make: BENCHMARKS[make].measure(model, BENCHMARKS[make].groups(case)) for make in makes(case)}
    if not found:
        titles = ", ".join(b.title for b in BENCHMARKS.values())
        return refusal("benchmark", f"The case is made from none of {titles}.")
    samples = {g: {u: v for m in found.values() for u, v in m.samples[g].items()} for g in ("forget", "retain")}
    return make_reading(
        "benchmark",
        samples,
        " ".join(BENCHMARKS[make].meaning(m.numbers) for make, m in found.items()),
        seed=case.seed,
        details={make: m.numbers.to_json() for make, m in found.items()},
        cost=benchmark_cost(model, case, Setting()),
    )


def benchmark_cost(model: Model, case: Case, setting: Setting) -> float:
    """One row for each answer, wrong answer, option, free answer and passage."""
    return sum(BENCHMARKS[make].rows(BENCHMARKS[make].groups(case)) for make in makes(case))
