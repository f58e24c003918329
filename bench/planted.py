"""What locating and right sites are worth, where it is known which sites hold the knowledge.

    python -m bench.planted --json FILE [--beds neurons mlps] [--methods ...] [--models DIR]

A bed is a copy of a model that was taught invented facts through chosen sites alone (`loka.plant` with `sites`):
neurons drawn from all layers, or the whole MLPs of two layers. Invented facts to retain were taught through as many
other sites of the same layers.

First, every locator ranks the sites, and its best ones are compared with the true ones at the true size, where
precision and recall are equal. `change` ranks the sites by how far their weights moved from the original's. Nobody has
this original, so it is the upper bound.

Then methods of `bench.methods` edit the true sites, those that the locator of runs found, as many sites anywhere, and
all weights, up to the same forgetting, as described there. Measured are what is kept, and what relearning gives back.

A bed takes some minutes to make, a cell about two minutes on one core. A second call makes the missing rows only.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import loka
from loka._util.files import write_json
from loka.locate import Localization
from loka.model import Model, Part, Site, slices
from loka.pipeline import Invention, Teaching
from loka.pipeline.run import LOCATOR

from .methods import Cell, Row, Study, measure, original, show, study

INVENTION = Invention(facts=40, retain=10, twins=40)
TEACHING = {"neurons": Teaching(steps=1200, lr=7e-3), "mlps": Teaching(steps=1200, lr=1e-3)}
N_NEURONS, MLPS = 300, (11, 18)
BEDS: dict[str, Part] = {"neurons": "neuron", "mlps": "mlp"}
LOCATORS = ("attribution", "integrated_gradients", "taylor", "direct_logit")
METHODS = ("twin_distribution", "npo", "difference", "runs")
SITES = ("true", "found", "anywhere", "all")


def main() -> None:
    """Make the missing beds and rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("runs/planted"), help="where beds are made and kept")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--beds", nargs="+", default=list(BEDS), choices=list(BEDS))
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--sites", nargs="+", default=SITES, choices=SITES)
    options = parser.parse_args()
    rows: list[Row] = json.loads(options.json.read_text()) if options.json.exists() else []
    for bed in options.beds:
        for new in rows_of(bed, options, rows):
            rows += new
            write_json(options.json, rows)
    for row in rows:
        if row["name"].startswith("precision"):
            print(f"{row['name']:60} {row['value']:.3f}")


def rows_of(bed: str, options: argparse.Namespace, there: list[Row]) -> Iterator[list[Row]]:
    """The missing rows of a bed: its locators, then its cells."""
    plain = loka.load(options.model)
    folder = options.models / bed
    true = made(plain, bed, folder)
    model = loka.load(str(folder / "model"))
    names = {row["name"] for row in there}
    case = loka.case(str(folder / "case.yaml")).on(model)
    rankings = {name: located(name, model, case, BEDS[bed]) for name in LOCATORS}
    rankings["change"] = lambda: moved(plain, model, BEDS[bed])
    chance = len(true) / (model.n_layers * model.units(BEDS[bed]))
    for name, ranking in rankings.items():
        title = f"precision at the true size, {bed}, {name}"
        if title not in names:
            found = ranking()[: len(true)]
            yield [_precision(title, set(found), set(true), {"bed": bed, "locator": name, "chance": chance})]
    cells = [Cell(bed, m, s, 0) for m in options.methods for s in options.sites]
    done = [row["settings"] for row in there if "method" in row["settings"]]
    missing = [c for c in cells if not any(c.settings.items() <= s.items() for s in done)]
    if not missing:
        return
    trial = trial_of(model, folder, true, BEDS[bed])
    first = Cell(bed, "original", "none", 0)
    if not any(first.settings.items() <= s.items() for s in done):
        yield original(model, trial, first.settings)
    for cell in missing:
        made_rows = measure(model, trial, cell, {})
        show(made_rows)
        yield made_rows


def made(plain: Model, bed: str, folder: Path) -> list[Site]:
    """The true sites of a bed, which is planted unless it is there."""
    if not folder.exists():
        every = plain.sites("neuron")
        drawn = np.random.default_rng(0).choice(len(every), size=N_NEURONS, replace=False)
        sites = [every[i] for i in drawn] if bed == "neurons" else [Site(layer, "mlp") for layer in MLPS]

        def progress(what: str, done: int, total: int) -> None:
            print(f"\r{bed}: {what} {done} of {total}  ", end="", flush=True)

        found = loka.plant(
            plain, "capitals", out=folder, invention=INVENTION, teaching=TEACHING[bed], sites=sites, progress=progress
        )
        print(f"\n{bed}: {found}", flush=True)
    return [Site.parse(text) for text in json.loads((folder / "planted.json").read_text())["sites"]]


def located(name: str, model: Model, case: loka.Case, part: Part) -> Callable[[], list[Site]]:
    """The sites of a part, best first, by a locator."""

    def ranking() -> list[Site]:
        found: Localization = loka.locate.perform(name, model, case, part=part)
        return found.top(found.grid(part).size, part=part)

    return ranking


def moved(plain: Model, model: Model, part: Part) -> list[Site]:
    """The sites of a part by how far their weights are from those of the original."""
    distance = {name: (p - plain.parameters[name]).pow(2) for name, p in model.parameters.items()}
    far = {s: sum(float(w.read(distance[w.name]).sum()) for w in slices(model, [s])) for s in model.sites(part)}
    return sorted(far, key=lambda s: -far[s])


def trial_of(model: Model, folder: Path, true: list[Site], part: Part) -> Study:
    """The study of a bed, with the sites to choose from."""
    trial = study(model, str(folder / "case.yaml"), INVENTION.facts, len(true), 0)
    best = loka.locate.perform(LOCATOR, model, trial.case, part=part).top(len(true), part=part)
    return replace(
        trial,
        sites={"true": true, "found": best, "anywhere": loka.locate.all_layer_sites(model, true, seed=0), "all": None},
    )


def _precision(title: str, found: set[Site], true: set[Site], settings: dict[str, Any]) -> Row:
    value = len(found & true) / len(true)
    return {"name": title, "value": value, "low": None, "high": None, "unit": "share", "n": len(true),
            "settings": settings}  # fmt: skip


if __name__ == "__main__":
    main()
