"""What the quick and the thorough recipe remove and cost, on located and on random neurons.

    python -m bench.recipes --json FILE [--figure FILE] [--cases capitals] [--recipes quick thorough] [--steps 50 150]

`quick` and `thorough` are the recipes of those names. `bare` is the thorough recipe without mixups and with the usual
warm-up. The control is the same edit on as many random neurons of the same layers, and the shallow sibling of the
audits is measured at the same budget. All questions use sealed prompts. r is measured by relearning with the loss on
the answers, in five folds: 1 is the original, 0 the never-taught twins. The attack is measured after 1, 2 and 4 steps.
`r` is its value at the end, `r, at most` its largest value.

Rows that the JSON file holds are not made again, nor edits that the folder holds. An edit takes three to ten minutes on
two cores with AMX, a thorough one an hour on one core without. Its measurements take two to five minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import loka
from bench.rounds import PANELS
from bench.tradeoff import STYLES, measure
from loka._util.files import write_json
from loka.audit.controls import shallow_sibling
from loka.knowledge import Case
from loka.model import Edit, Model
from loka.pipeline.recipe import Recipe
from loka.pipeline.run import LOCATOR
from loka.verify.judge.statistics import interval

# fields that differ from the thorough recipe
THOROUGH: dict[str, dict[str, Any]] = {"thorough": {}, "bare": {"mixup_rows": 0, "warm_up": 5}}

FILLS = {"bare": "#cccccc", "quick": "white"}

Row = dict[str, Any]
Cell = tuple[str, int, str]  # recipe, steps, choice of neurons


def main() -> None:
    """Make the missing rows, the cheapest first; print a table, write the rows and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--folder", type=Path, help="holds the edits; by default beside the JSON file")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--cases", nargs="+", default=["capitals"])
    parser.add_argument("--recipes", nargs="*", default=["quick", "thorough"], choices=["quick", *THOROUGH])
    parser.add_argument("--steps", type=int, nargs="*", help="of the thorough recipes; by default as in the recipe")
    parser.add_argument("--which", nargs="*", default=list(STYLES), choices=list(STYLES))
    options = parser.parse_args()
    rows: list[Row] = json.loads(options.json.read_text()) if options.json.exists() else []
    steps = options.steps or [Recipe.load("thorough").config.steps]
    for name in options.cases:
        folder = (options.folder or options.json.with_suffix("")) / name
        for new in missing_rows(rows, options.model, name, cells(options.recipes, steps, options.which), folder):
            rows = [*rows, *new]
            write_json(options.json, rows)
    rows = [r for r in rows if "-" not in r["name"]]
    rows += [row for name in options.cases for row in differences(rows, name)]
    write_json(options.json, rows)
    for row in rows:
        s = row["settings"]
        spread = "" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
        print(f"{s['case']:10}{s['recipe']:10}{s['steps']:4} {s['which']:9}{row['name']:32}{row['value']:.3f}{spread}")
    if options.figure:
        picture(rows, options.cases).savefig(options.figure, dpi=150)


def cells(recipes: Sequence[str], steps: Sequence[int], which: Sequence[str]) -> list[Cell]:
    """The cells to measure of a case."""
    lengths = {name: sorted(steps) if name in THOROUGH else [Recipe.load("quick").config.steps] for name in recipes}
    out = [("original", 0, "none"), ("shallow", 0, "none")]
    return out + [(name, n, w) for name, steps in lengths.items() for n in steps for w in which]


def missing_rows(
    rows: Sequence[Row], name: str, case_name: str, cells: Sequence[Cell], folder: Path
) -> Iterator[list[Row]]:
    """The missing rows of a case, one edit at a time."""
    missing = [cell for cell in cells if not _select(rows, case_name, cell)]
    if not missing:
        return
    model = loka.load(name)
    case = loka.case(case_name).on(model)
    zero_one = {r["name"]: r["value"] for r in _select(rows, case_name, ("original", 0, "none"))}
    for recipe, steps, which in missing:
        path = folder / f"{recipe}-{steps}-{which}.safetensors"
        edit = Edit.load(path) if path.exists() else _edit(model, case, recipe, steps, which)
        if edit:
            edit.save(path)
        settings = {"model": name, "case": case_name, "recipe": recipe, "steps": steps, "which": which}
        groups = ("forget", "twins") if recipe == "original" else ("forget",)
        new = measure(model, case, edit, settings, groups=groups)
        if recipe == "original":
            zero_one = {r["name"]: r["value"] for r in new}
        yield [*new, *_recovery(new, zero_one["relearned twins"], zero_one["relearned"])]


def _edit(model: Model, case: Case, recipe: str, steps: int, which: str) -> Edit | None:
    if recipe in ("original", "shallow"):
        objective = Recipe.load("quick").config.objective
        return shallow_sibling(model, case, recall=0.0, objective=objective) if recipe == "shallow" else None
    base = Recipe.load("thorough" if recipe in THOROUGH else "quick")
    found = loka.locate.mark_general(model, case, loka.locate.perform(LOCATOR, model, case))
    sites = found.top(base.sites, part=base.part)
    if which == "random":
        sites = loka.locate.random_sites(model, sites, seed=case.seed)
    config = dataclasses.replace(base.config, **THOROUGH.get(recipe, {}), steps=steps)
    return loka.ablate.tune(model, case, sites, config)


def _recovery(rows: Sequence[Row], zero: float, one: float) -> Iterator[Row]:
    """r: the place of the relearned answers between the twins' value and the original's, also by subject."""
    back, most = (next(r for r in rows if r["name"] == name) for name in ("relearned", "relearned, at most"))
    samples = {s: (v - zero) / (one - zero) for s, v in back["samples"].items()}
    yield _row("r", samples, back["settings"])
    yield {**most, "name": "r, at most", "value": (most["value"] - zero) / (one - zero), "unit": ""}


def differences(rows: Sequence[Row], case: str) -> Iterator[Row]:
    """r of located minus r of random neurons, by recipe and length, paired over subjects."""
    for recipe, steps, _ in sorted({_cell(r) for r in rows if r["settings"]["which"] == "located"}):
        pair = [next((r for r in _select(rows, case, (recipe, steps, w)) if r["name"] == "r"), None) for w in STYLES]
        if all(pair):
            mine, theirs = (r["samples"] for r in pair if r)
            settings = {"case": case, "recipe": recipe, "steps": steps, "which": "both"}
            yield _row("r: located - random", {s: mine[s] - theirs[s] for s in mine}, settings)


def _row(name: str, samples: dict[str, float], settings: dict[str, Any]) -> Row:
    low, high = interval(list(samples.values()))
    mean = float(np.mean(list(samples.values())))
    return {
        "name": name, "value": mean, "low": low, "high": high, "unit": "", "n": len(samples), "settings": settings,
        "samples": samples,
    }  # fmt: skip


def _cell(row: Row) -> Cell:
    s = row["settings"]
    return s["recipe"], s["steps"], s["which"]


def _select(rows: Sequence[Row], case: str, cell: Cell) -> list[Row]:
    return [r for r in rows if r["settings"]["case"] == case and _cell(r) == cell]


def picture(rows: Sequence[Row], cases: Sequence[str]) -> Figure:
    """r and the collateral over the length of the training, with the aims. A row is a case."""
    figure = Figure(figsize=(13, 3.2 * len(cases)), layout="constrained")
    grid = figure.subplots(len(cases), len(PANELS), squeeze=False)
    for case, axes in zip(cases, grid, strict=True):
        value = {(r["name"], *_cell(r)): r["value"] for r in rows if r["settings"]["case"] == case}
        for ax, (name, (title, aim)) in zip(axes, PANELS.items(), strict=True):
            whole = 1.0 if name == "r" else value[name, "original", 0, "none"]
            for which, (color, marker) in STYLES.items():
                for recipe, fill in {"thorough": color, **FILLS}.items():
                    points = {k[2]: v / whole for k, v in value.items() if k[:2] == (name, recipe) and k[3] == which}
                    if points:
                        ax.plot(
                            *zip(*sorted(points.items()), strict=True), color=color, marker=marker, mfc=fill, lw=2,
                            ms=7, label=f"{recipe}, {which}",
                        )  # fmt: skip
            ax.axhline(value[name, "shallow", 0, "none"] / whole, color="#777777", ls="--", label="shallow sibling")
            ax.axhline(aim, color="#2a9d5c", ls=":", lw=1.5, label="aim")
            ax.set(xlabel="steps", xlim=(0, None))
            ax.set_title(title, fontsize=11)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylabel(case)
    handles = {
        label: handle for ax in grid[:, 0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    main()
