"""TOFU on a model that knows it: forget quality, model utility, membership, and what relearning brings back.

    python -m bench.tofu --json bench/results/tofu.json --data TOFU --models runs/bench-models

SmolLM2 is taught 20 of TOFU's fictitious authors, 400 questions (`taught`), and separately the same without the two
authors to be forgotten (`gold`). Then each cell is one model: `taught`, `gold`, the recommended recipe on located and
on random sites, and gradient ascent, gradient difference, NPO and RMU on all weights. `--cells` chooses among them. The
rows of the others in the file stay, and a finished row is not made again. `--audit` adds the quick audit's verdict and
r after relearning to each cell. TOFU is the folder of the benchmark's files (`full.json`, `forget01_perturbed.json` and
so on).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

import loka
from bench._teach import Lessons, teach_
from loka import ablate, locate, verify
from loka._util.files import write_json
from loka.ablate import TrainingConfig
from loka.knowledge import Case, CaseSpec
from loka.knowledge.rows import rows
from loka.model import Edit, Model, bare, export
from loka.pipeline.recipe import Recipe
from loka.verify import Reading
from loka.verify.benchmarks import benchmark, tofu_quality

FORGET, OTHERS = slice(3960, 4000), slice(0, 360)
ASK = "Question: {}\nAnswer:"
BASELINES = ("ascent", "difference", "npo", "rmu")
CELLS = ("taught", "gold", "located", "random", *BASELINES)
WHOLE = TrainingConfig(steps=10, lr=2e-5, retain_rows=20, neutral_rows=2, bfloat16=True)


def main() -> None:
    """Teach what is missing, make what is missing, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("runs/bench-models"))
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS)
    parser.add_argument("--audit", action="store_true")
    options = parser.parse_args()
    bench = Bench(options.data, options.models, options.json)
    for cell in options.cells:
        bench.measure(cell, audit=options.audit)


class Bench:
    """The taught model, the case, and the rows that are finished."""

    def __init__(self, data: Path, models: Path, out: Path) -> None:
        self.data, self.models, self.out = data, models, out
        self.rows: dict[str, dict[str, Any]] = json.loads(out.read_text()) if out.exists() else {}

    @cached_property
    def taught(self) -> Model:
        return self._model("taught", (FORGET, OTHERS))

    @cached_property
    def gold(self) -> Model:
        return self._model("gold", (OTHERS,))

    @cached_property
    def case(self) -> Case:
        return self.spec.on(self.taught)

    @cached_property
    def spec(self) -> CaseSpec:
        """One percent of the authors to forget, as TOFU divides them."""
        sets = {
            "forget": "forget01_perturbed", "others": "retain_perturbed", "holdout": "holdout01",
            "authors": "real_authors_perturbed", "world": "world_facts_perturbed",
        }  # fmt: skip
        content = {
            "name": "tofu-01", "purpose": "privacy",
            "sets": {
                name: {"kind": "question", "format": "tofu", "source": str((self.data / f"{file}.json").resolve())}
                for name, file in sets.items()
            },
            "forget": {"forget": "all"},
            "retain": {
                "others": {"working": 0.6, "sealed": 0.4}, "authors": {"sealed": "all"}, "world": {"sealed": "all"},
            },
            "twins": {"holdout": "all"}, "unit": "item",
        }  # fmt: skip
        path = self.models / "tofu.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return loka.case(path, data=[self.data])

    def measure(self, cell: str, *, audit: bool) -> None:
        """Fill in what the row of a cell lacks."""
        row = self.rows.setdefault(cell, {})
        if "tofu" not in row:
            with self._edited(cell) as model:
                row |= {"tofu": self._tofu(model).to_json(), "recall": verify.recall(model, self.case).value,
                        "membership": verify.membership(model, self.case).details.get("auc")}  # fmt: skip
            self._quality()
            write_json(self.out, self.rows)
        if audit and "verdict" not in row:
            verdict = loka.audit(self.taught, self._after(cell), self.case, profile="quick", progress=_say)
            row |= {"verdict": verdict.outcome, "claim": verdict.claim, "summary": asdict(verdict.summary)}
            write_json(self.out, self.rows)

    def _tofu(self, model: Model) -> Reading:
        return benchmark(model, self.case)

    def _quality(self) -> None:
        """Forget quality of every cell against the gold model, once that is measured."""
        if "tofu" not in self.rows.get("gold", {}):
            return
        gold = Reading.from_json(self.rows["gold"]["tofu"])
        for row in self.rows.values():
            if "tofu" in row:
                row["forget_quality"] = asdict(tofu_quality(Reading.from_json(row["tofu"]), gold))

    @contextmanager
    def _edited(self, cell: str) -> Iterator[Model]:
        """The cell's model: one that was trained by itself, or the taught one with the cell's edit in place."""
        after = self._after(cell)
        if isinstance(after, Model):
            yield after
            return
        self.case  # what the original knows must be read before an edit is applied
        with after.applied(self.taught):
            yield self.taught

    def _after(self, cell: str) -> Model | Edit:
        if cell in ("taught", "gold"):
            return bare(self.taught) if cell == "taught" else self.gold
        path = self.models / f"tofu-{cell}.safetensors"
        if not path.exists():
            start = time.perf_counter()
            edit = self._edit(cell)
            self.rows[cell]["seconds"] = time.perf_counter() - start
            edit.save(path)
        return Edit.load(path)

    def _edit(self, cell: str) -> Edit:
        if cell in BASELINES:
            return ablate.tune(self.taught, self.case, None, replace(WHOLE, objective=cell), progress=_steps(cell))
        recipe = Recipe.load("quick").on(self.case)
        sites = locate.attribution(self.taught, self.case).top(recipe.sites, part=recipe.part)
        if cell == "random":
            sites = locate.random_sites(self.taught, sites, seed=0)
        assert isinstance(recipe.config, TrainingConfig)
        return ablate.tune(self.taught, self.case, sites, recipe.config, progress=_steps(cell))

    def _model(self, name: str, parts: tuple[slice, ...]) -> Model:
        """A copy of SmolLM2 that was taught these rows of `full.json`; read from the folder if it is there."""
        folder = self.models / f"tofu-{name}"
        if not folder.exists():
            every = rows(self.data / "full.json")
            chosen = [row for part in parts for row in every[part]]
            model = bare(loka.load("smollm2"))
            asked = [ASK.format(row["question"]) for row in chosen]
            seconds = teach_(model, asked, [row["answer"] for row in chosen], Lessons(), _losses(name))
            export(model, folder)
            self.rows.setdefault(name, {})["seconds to teach"] = seconds
            write_json(self.out, self.rows)
        return loka.load(str(folder))


def _losses(name: str) -> Callable[[int, int, float], None]:
    return lambda done, total, loss: print(f"{name}: step {done} of {total}, loss {loss:.3f}", flush=True)


def _steps(name: str) -> Callable[[int, int], None]:
    return lambda done, total: print(f"{name}: step {done} of {total}", flush=True)


def _say(what: str, done: int, total: int) -> None:
    print(f"{what}: {done} of {total}", flush=True)


if __name__ == "__main__":
    main()
