"""What rounds of reset and repair remove and cost, by the length of the repair, on located and on random neurons.

    python -m bench.rounds --json FILE [--figure FILE] [--folder DIR]

There are two rounds. The first re-initialises the located neurons and repairs them. Half of the facts are then
relearned, which shows where the other half comes back. The second round re-initialises those neurons as well and
repairs all of them. The control does the same to as many random neurons of the same layers. Neither touches the 1% of
neurons that neutral text needs most (`loka.locate.exclude_general`). r is measure by relearning with the loss on the
answers, in five folds: 1 is the original, 0 the never-taught twins. The shallow sibling of the audits is measure at
the same budget. A hundred steps with their measurements take about ten minutes on a busy core.

Rows that the JSON file holds are not made again, nor rounds that the folder holds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tqdm import tqdm

import loka
from bench.tradeoff import STYLES, measure
from loka._util.files import write_json
from loka.ablate import Locator, RoundPlan, TrainingConfig
from loka.audit.controls import shallow_sibling
from loka.knowledge import Case
from loka.model import Edit, Model, Site

# Title and aim of each panel. r stands for itself, every other measure is a share of the original's.
PANELS = {
    "r": ("r after relearning", 0.1),
    "same": ("same relation, of before", 0.95),
    "other": ("other relations, of before", 0.95),
    "perplexity": ("perplexity, of before", 1.01),
}
RECIPE: dict[str, Any] = {
    "lr": 3e-3, "retain_weight": 5.0, "neutral_weight": 1.0, "retain_rows": 32, "neutral_rows": 4, "bfloat16": True,
}  # fmt: skip
Row = dict[str, Any]


def main() -> None:
    """Make the missing rows, the cheapest first; print a table, write the rows and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--folder", type=Path, help="holds finished rounds; by default beside the JSON file")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--steps", type=int, nargs="*", default=[50, 100, 200, 400])
    parser.add_argument("--counts", type=int, nargs="+", default=[400, 200])
    options = parser.parse_args()
    bench = Bench(options.model, options.counts, options.json, options.folder or options.json.with_suffix(""))
    bench.make(sorted(options.steps))
    for row in bench.rows:
        settings = row["settings"]
        print(f"{settings['steps']:5} {settings['which']:9} {row['name']:40} {row['value']:.3f}")
    if options.figure:
        curve(bench.rows).savefig(options.figure, dpi=150)


class Bench:
    """The rows of a file, and the means to add the missing ones."""

    def __init__(self, name: str, counts: Sequence[int], path: Path, folder: Path) -> None:
        self.name, self.counts, self.path, self.folder = name, list(counts), path, folder
        self.rows: list[Row] = json.loads(path.read_text()) if path.exists() else []

    def make(self, steps: Sequence[int]) -> None:
        """Add the original, the shallow sibling, and each length of repair, located and random."""
        cells = [("original", 0), ("shallow", 0), *((which, n) for n in steps for which in STYLES)]
        finished = {(r["settings"]["which"], r["settings"]["steps"]) for r in self.rows}
        missing = [cell for cell in cells if cell not in finished]
        if not missing:
            return
        model = loka.load(self.name)
        case = loka.case("capitals").on(model)
        for which, n in missing:
            if which in STYLES:
                edit = Cell(model, case, self.counts, n, self.folder).edit(which)
            else:
                edit = shallow_sibling(model, case, recall=0.0) if which == "shallow" else None
            self._add(model, case, which, n, edit)

    def _add(self, model: Model, case: Case, which: str, steps: int, edit: Edit | None) -> None:
        settings = {"model": self.name, "which": which, "steps": steps}
        if which in STYLES and edit:
            settings |= {"counts": self.counts, "sites_per_round": [r.sites for r in edit.record.rounds], **RECIPE}
        groups = ("forget", "twins") if which == "original" else ("forget",)
        self.rows += measure(model, case, edit, settings, groups=groups)
        self.rows += self._recovery(which, steps, settings)
        write_json(self.path, self.rows)

    def _recovery(self, which: str, steps: int, settings: dict[str, Any]) -> list[Row]:
        """r: the place of the relearned answers between the twins' value and the original's."""
        back, whole, never = (self._row(*at) for at in (
            ("relearned", which, steps), ("relearned", "original", 0), ("relearned twins", "original", 0)))  # fmt: skip
        zero, one = never["value"], whole["value"]
        r = {k: back[k] and (back[k] - zero) / (one - zero) for k in ("value", "low", "high")}
        return [{"name": "r", **r, "unit": "", "n": back["n"], "settings": settings}]

    def _row(self, name: str, which: str, steps: int) -> Row:
        at = which, steps
        return next(
            r for r in self.rows if r["name"] == name and (r["settings"]["which"], r["settings"]["steps"]) == at
        )


@dataclass
class Cell:
    """The two edits of one length of repair. Rounds that the folder holds are not made again."""

    model: Model
    case: Case
    counts: list[int]
    steps: int
    folder: Path

    def edit(self, which: str) -> Edit:
        """Rounds on located neurons, or on as many random ones of the same layers, divided over as many rounds."""
        allowed = set(loka.locate.exclude_general(self.model, self.case, self.model.sites("neuron")))

        def locator(model: Model, case: Case) -> list[Site]:
            found = loka.locate.attribution(model, case, parts=("neuron",))
            return [s for s in found.top(len(found.frame)) if s in allowed]

        best = locator(self.model, self.case)[: self.counts[0]]
        located = self._rounds("located", best, locator)
        if which == "located":
            return located
        sites = [Site.parse(s) for s in located.record.sites or ()]
        never = set(self.model.sites("neuron")) - allowed
        others = loka.locate.random_sites(self.model, sites, without=never, seed=self.case.seed)
        return self._rounds("random", others, None)

    def _rounds(self, which: str, sites: list[Site], locator: Locator | None) -> Edit:
        bar = tqdm(desc=f"{which}, {self.steps} steps", total=len(self.counts) * self.steps, mininterval=30)

        def step(done: int, _: int) -> None:
            bar.update(done - bar.n)

        config = TrainingConfig(steps=self.steps, every=max(50, self.steps // 2), **RECIPE)
        with bar:
            return loka.ablate.rounds(
                self.model, self.case, sites, config, locator=locator, plan=RoundPlan(tuple(self.counts)),
                folder=self.folder / f"{which}-{self.steps}", progress=step,
            )  # fmt: skip


def curve(rows: Sequence[Row]) -> Figure:
    """r and the collateral over the length of the repair, located and random, with the aims."""
    value = {(r["name"], r["settings"]["which"], r["settings"]["steps"]): r["value"] for r in rows}
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for ax, (name, (title, aim)) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        whole = 1.0 if name == "r" else value[name, "original", 0]
        for which, (color, marker) in STYLES.items():
            points = sorted((n, v / whole) for (what, who, n), v in value.items() if (what, who) == (name, which))
            if points:
                ax.plot(*zip(*points, strict=True), color=color, marker=marker, lw=2, ms=7, label=which)
        ax.axhline(value[name, "shallow", 0] / whole, color="#777777", ls="--", lw=1.5, label="shallow sibling")
        ax.axhline(aim, color="#2a9d5c", ls=":", lw=1.5, label="aim")
        ax.set(title=title, xlabel="repair steps a round", xscale="log")
        sizes = sorted({r["settings"]["steps"] for r in rows} - {0})
        ax.set_xticks(sizes, [str(n) for n in sizes])
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
