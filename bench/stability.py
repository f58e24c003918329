"""Whether another wording of the same question finds the same neurons.

    python -m bench.stability --json FILE

Each forget fact is located alone in each of its working templates. The ratio of a row compares two overlaps between
templates: that of a fact's best neurons with its own, and that with the best neurons of other facts. About twelve
minutes on one core.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import loka
from loka._util.files import write_json
from loka.locate import Stability

CASES = ("capitals", "elements", "authors")
KS = (10, 50, 200)


def main() -> None:
    """Measure every case and size, print a table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--k", type=int, nargs="+", default=KS)
    options = parser.parse_args()
    model = loka.load(options.model)
    rows: list[dict[str, Any]] = []
    for name, k, contrast in product(options.cases, options.k, (True, False)):
        case = loka.case(name).on(model)
        found = loka.locate.stability(model, case, k=k, contrast=contrast)
        rows.append(row(found, {"model": options.model, "case": name, "contrast": contrast}))
        print(f"{name}{'' if contrast else ', without contrast'}: {found}", flush=True)
        if options.json:
            write_json(options.json, rows)


def row(found: Stability, settings: dict[str, Any]) -> dict[str, Any]:
    """The ratio with its interval over facts. The settings hold both overlaps."""
    low, high = found.interval()
    return {
        "name": f"overlap between paraphrases / with other facts, {settings['case']}, best {found.k} {found.part}s",
        "ratio": found.ratio, "low": low, "high": high, "unit": "times", "n": len(found.same),
        "settings": settings | {
            "k": found.k, "same": float(found.same.mean()), "others": float(found.others.mean()), "chance": found.chance
        },
    }  # fmt: skip


if __name__ == "__main__":
    main()
