"""The benchmarks' numbers in readings, completed by the reading of a model that was trained without the forget set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._util.errors import UserError
from ..metrics.tofu import ForgetQuality, tofu_forget_quality
from ..reading import Reading
from .numbers import BenchmarkNumbers
from .table import BENCHMARKS


def numbers_of(reading: Reading | None) -> dict[str, BenchmarkNumbers]:
    """The numbers of each benchmark in a reading of the check `benchmark`."""
    details: Any = reading.details if reading else {}
    return {make: BenchmarkNumbers.from_json(details[make]) for make in BENCHMARKS if make in details}


def benchmarks_of(readings: Mapping[str, Mapping[str, Reading]]) -> dict[str, dict[str, BenchmarkNumbers]]:
    """The numbers by benchmark and model (`before`, `after`), completed by the reading of a control named `gold`."""
    own = {model: numbers_of(readings.get(model, {}).get("benchmark")) for model in ("before", "after", "gold")}
    gold = own.pop("gold")
    return {
        make: {m: row.completed(found[make], gold.get(make)) for m, found in own.items() if make in found}
        for make, row in BENCHMARKS.items()
        if any(make in found for found in own.values())
    }


def unmeasured(found: Mapping[str, Mapping[str, BenchmarkNumbers]]) -> list[str]:
    """A sentence for each reason that numbers about the edited model are missing."""
    out = []
    for make, of_model in found.items():
        row, missing = BENCHMARKS[make], of_model["after"].missing if "after" in of_model else {}
        for why in dict.fromkeys(missing.values()):
            names = ", ".join(row.labels[name] for name in row.labels if missing.get(name) == why)
            out.append(f"Not measured: {names} of {row.title}. {why}")
    return out


def tofu_quality(after: Reading, gold: Reading) -> ForgetQuality:
    """TOFU's forget quality: whether the truth ratios look like those of a model that never saw the forget set.

    Args:
        after: a reading of `benchmark` on the edited model.
        gold: the same on a model trained without the forget set.

    Raises:
        UserError: a reading without TOFU's truth ratios.
    """
    sides = [numbers_of(reading).get("tofu") for reading in (after, gold)]
    if None in sides:
        raise UserError("a reading has no numbers of TOFU; read `benchmark` on a case that is made from TOFU.")
    ratios = [side.compared.get("truth_ratios", []) for side in sides if side is not None]
    return tofu_forget_quality(*ratios)
