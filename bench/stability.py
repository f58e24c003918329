"""Whether another wording of the same question finds the same neurons.

    python -m bench.stability --json FILE

Each forget fact is located by itself behind each of its working templates. A row's ratio is the overlap of a fact's
best neurons between templates, as a multiple of the null: the overlap with other facts' behind the other template.
About twelve minutes on one core.
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--k", type=int, nargs="+", default=KS)
    options = parser.parse_args()
    model = loka.load(options.model)
    rows: list[dict[str, Any]] = []
    for name, k, contrasted in product(options.cases, options.k, (True, False)):
        case = loka.case(name).on(model)
        seen = loka.locate.stability(model, case, k=k, contrast=contrasted)
        rows.append(row(seen, {"model": options.model, "case": name, "contrasted": contrasted}))
        print(f"{name}{'' if contrasted else ', without contrast'}: {seen}", flush=True)
        if options.json:
            write_json(options.json, rows)


def row(seen: Stability, settings: dict[str, Any]) -> dict[str, Any]:
    """The ratio with its interval over facts; the overlaps behind it among the settings."""
    low, high = seen.interval()
    return {
        "name": f"overlap between paraphrases / with other facts, {settings['case']}, best {seen.k} {seen.part}s",
        "ratio": seen.ratio, "low": low, "high": high, "unit": "times", "n": len(seen.same),
        "settings": settings | {
            "k": seen.k, "same": float(seen.same.mean()), "others": float(seen.others.mean()), "chance": seen.chance
        },
    }  # fmt: skip


if __name__ == "__main__":
    main()
