"""What an edit of a given size removes and costs, on located and on random neurons of the same layers.

    python -m bench.tradeoff --json FILE [--figure FILE]

The edit trains `undial` with simulated relearning on neurons that attribution locates. Rows that the JSON file holds
are not made again. About four minutes per edit on two cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import loka
from loka._util.files import write_json
from loka.knowledge import Case
from loka.model import Edit, Model
from loka.verify.checks import CAP

MEASURES = {
    "forget": "capitals to forget, answered",
    "same": "capitals to retain, answered",
    "relearned": "after relearning the others",
}
TRAINING: dict[str, Any] = {
    "objective": "undial", "steps": 30, "lr": 1e-3, "retain_weight": 20.0, "neutral_weight": 6.0, "push_weight": 0.25,
    "retain_rows": 32, "neutral_rows": 3, "simulated_relearning": {"start": 6, "every": 5, "steps": 3, "radius": 0.1},
}  # fmt: skip
STYLES = {"located": ("#0072b2", "o"), "random": ("#d98200", "^")}


def main() -> None:
    """Make the missing rows, print a table, write the rows and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--sites", type=int, nargs="+", default=[60, 200, 600])
    options = parser.parse_args()
    model = loka.load(options.model)
    case = loka.case("capitals").on(model)
    found = loka.locate.attribution(model, case)
    rows: list[dict[str, Any]] = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    for n in sorted(options.sites, reverse=True):
        best = found.top(n, part="neuron")
        for which, sites in (("located", best), ("random", loka.locate.random_sites(model, best, seed=case.seed))):
            if any(r["settings"]["sites"] == n and r["settings"]["which"] == which for r in rows):
                continue
            edit = loka.ablate.tune(model, case, sites, loka.ablate.TrainingConfig.from_json(TRAINING))
            rows += measure(model, case, edit, {"model": options.model, "sites": n, "which": which, **TRAINING})
            if options.json:
                write_json(options.json, rows)
    for row in rows:
        print(f"{row['settings']['sites']:5} {row['settings']['which']:8} {row['name']:40} {row['value']:.3f}")
    if options.figure:
        curve(rows).savefig(options.figure, dpi=150)


def measure(
    model: Model, case: Case, edit: Edit | None, settings: dict[str, Any], *, groups: Sequence[str] = ("forget",)
) -> list[dict[str, Any]]:
    """One row per measure on sealed prompts, of an edit or of the original."""
    with edit.applied(model) if edit else nullcontext():
        recall = loka.verify.recall(model, case)
        collateral = loka.verify.collateral(model, case)
        back = loka.verify.relearn(model, case, budget=CAP, groups=groups)
    samples = {"forget": recall.samples["forget"], "relearned": back.samples["forget"]}
    values = {
        "forget": (recall.value, recall.ci, recall.n),
        "same": (collateral.controls["same"], None, None),
        "other": (collateral.controls["other"], None, None),
        "perplexity": (collateral.details["perplexity"], None, None),
        "relearned": (back.value, back.ci, back.n),
        "relearned, at most": (max(back.details["curve"]["forget"].values()), None, None),
        **{f"relearned {g}": (back.controls[g], None, None) for g in groups if g != "forget"},
    }
    return [
        {
            "name": name, "value": value, "low": ci and ci[0], "high": ci and ci[1],
            "unit": "" if name == "perplexity" else "share", "n": n, "settings": settings,
            **({"samples": samples[name]} if name in samples else {}),
        }
        for name, (value, ci, n) in values.items()
    ]  # fmt: skip


def curve(rows: Sequence[dict[str, Any]]) -> Figure:
    """Each measure over the number of neurons, located and random."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for ax, (name, title) in zip(figure.subplots(1, len(MEASURES), sharey=True), MEASURES.items(), strict=True):
        for which, (color, marker) in STYLES.items():
            points = sorted(
                (r["settings"]["sites"], r["value"])
                for r in rows
                if r["name"] == name and r["settings"]["which"] == which
            )
            ax.plot(*zip(*points, strict=True), color=color, marker=marker, lw=2, ms=7, label=which)
        ax.set(title=title, xlabel="neurons trained", ylim=(0, 1), xscale="log")
        sizes = sorted({r["settings"]["sites"] for r in rows})
        ax.set_xticks(sizes, [str(n) for n in sizes])
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("share, probability")
    figure.axes[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
