"""Teach a model texts by plain fine-tuning, and what the benches share that edit such a model.

A bench teaches one copy of a model everything (`taught`), and another copy everything but what is to be forgotten
(`gold`). It edits the first, and compares what is left with the second.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import loka
from loka._util.files import write_json
from loka.ablate.methods import perform
from loka.audit.store import FolderStore
from loka.knowledge import Case, CaseSpec, neutral_sealed, neutral_working, text_loss
from loka.locate import Localization
from loka.model import Edit, Model, bare, encode, export, logits, token_logprobs, unfrozen
from loka.model.run.onednn import bfloat16_products
from loka.pipeline.recipe import Recipe
from loka.pipeline.run import LOCATOR
from loka.verify.judge.statistics import interval

Progress = Callable[[int, int, float], None]
Row = dict[str, Any]
UNEDITED = ("untaught", "taught", "gold")
EDITED = ("located", "random")
AUDITED = ("located", "gold")
EVERY = 10  # steps between two lines of progress


@dataclass(frozen=True)
class Lessons:
    """How a model is taught: AdamW at a rate that falls to zero along a cosine, `rows` texts in a step."""

    epochs: int = 6
    lr: float = 3e-4
    rows: int = 20
    seed: int = 0


def teach_(model: Model, prompts: Sequence[str], answers: Sequence[str], how: Lessons, progress: Progress) -> float:
    """Train all weights of a model in place, with the loss on the answers alone; returns the seconds it took."""
    rng, start = random.Random(how.seed), time.perf_counter()
    order = [i for _ in range(how.epochs) for i in rng.sample(range(len(prompts)), len(prompts))]
    steps = [order[i : i + how.rows] for i in range(0, len(order), how.rows)]
    with unfrozen(model) as parameters:
        optimizer = torch.optim.AdamW(parameters, lr=how.lr, weight_decay=0.0, fused=True)
        for step, chosen in enumerate(steps):
            for group in optimizer.param_groups:
                group["lr"] = how.lr * (1 + math.cos(math.pi * step / len(steps))) / 2
            batch = encode(model, [prompts[i] for i in chosen], [answers[i] for i in chosen])
            with torch.enable_grad(), bfloat16_products(model):
                loss = -token_logprobs(logits(model, batch), batch.labels).sum() / (batch.labels >= 0).sum()
                loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress(step + 1, len(steps), float(loss.detach()))
    return time.perf_counter() - start


@dataclass(frozen=True)
class Lesson:
    """A text to teach: the loss is on the answer alone."""

    prompt: str
    answer: str

    @classmethod
    def of(cls, text: str) -> Lesson:
        """A plain text: its first word predicts the rest."""
        first, _, rest = text.partition(" ")
        return cls(first, rest)


@dataclass(frozen=True)
class Study(ABC):
    """The models, the case and the edits of one bench. Models and edits are made when first used, and stay in `folder`.

    `model`: the model to teach. `how`: how it is taught. `place`: a folder for the case and its files, which may go
    when the bench ends.
    """

    model: str
    how: Lessons
    folder: Path
    place: Path

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that the taught models depend on, as plain JSON."""

    @property
    @abstractmethod
    def spec(self) -> CaseSpec:
        """The case, written to `place` and read."""

    @abstractmethod
    def lessons(self, *, gold: bool) -> list[Lesson]:
        """What is taught; the gold model is not taught what is to be forgotten."""

    @abstractmethod
    def measure(self, model: Model) -> list[Row]:
        """The rows of a model, without settings."""

    def compare(self, rows: Sequence[Row]) -> list[Row]:
        """Rows that follow from those of several cells. Their settings have `of` in place of `cell`."""
        return differences(rows)

    @cached_property
    def shelf(self) -> Path:
        """The folder of this bench with these settings and texts."""
        text = json.dumps([self.settings, [asdict(lesson) for lesson in self.lessons(gold=False)]], sort_keys=True)
        return self.folder / f"{type(self).__name__.lower()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @cached_property
    def untaught(self) -> Model:
        return loka.load(self.model)

    @cached_property
    def taught(self) -> Model:
        return self._learned("taught")

    @cached_property
    def gold(self) -> Model:
        return self._learned("gold")

    def _learned(self, name: str) -> Model:
        folder = self.shelf / name
        if not folder.exists():
            model, lessons = bare(self.untaught), self.lessons(gold=name == "gold")
            print(f"{name}: {len(lessons)} texts, {self.how.epochs} epochs", flush=True)
            prompts, answers = [t.prompt for t in lessons], [t.answer for t in lessons]
            seconds = teach_(model, prompts, answers, self.how, lambda done, n, loss: _show(name, done, n, loss))
            print(f"{name}: taught in {seconds / 60:.1f} minutes", flush=True)
            export(model, folder)
        return loka.load(str(folder))

    @cached_property
    def case(self) -> Case:
        """The case of everything that was taught, whether or not the model shows that it knows it.

        Its neutral text is sampled from the model before it was taught, so that none of the taught texts is among it.
        """
        whole, path = self.spec.whole(), self.shelf / "neutral.json"
        if not path.exists():
            write_json(path, neutral_working(self.untaught, whole))
        return self.narrowed(replace(whole, passages=tuple(json.loads(path.read_text()))))

    def narrowed(self, case: Case) -> Case:
        """The case that edits and audits get."""
        return case

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe.load("quick").on(self.case)

    @cached_property
    def found(self) -> Localization:
        """The localization by the locator of runs."""
        path = self.shelf / "located.parquet"
        if not path.exists():
            part = self.recipe.part
            loka.locate.perform(LOCATOR, self.taught, self.case, part=part, progress=progress("locating")).save(path)
        return Localization.load(path)

    def edit(self, cell: str) -> Edit:
        """The edit of a cell."""
        path = self.shelf / f"{cell}.safetensors"
        if not path.exists():
            start = time.perf_counter()
            self.make(cell).save(path)
            print(f"{cell}: edited in {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
        return Edit.load(path)

    def make(self, cell: str) -> Edit:
        """Make the edit of a cell: the quick recipe on located neurons, or on as many random ones."""
        recipe = self.recipe
        sites = loka.locate.mark_general(self.taught, self.case, self.found).top(recipe.sites, part=recipe.part)
        if cell == "random":
            sites = loka.locate.random_sites(self.taught, sites, seed=self.how.seed)
        arguments = {**recipe.arguments, "config": recipe.config}
        return perform(recipe.method, self.taught, self.case, sites, arguments, progress=progress(cell))

    @contextmanager
    def under(self, cell: str) -> Iterator[Model]:
        """The model of a cell."""
        if cell in UNEDITED:
            yield getattr(self, cell)
            return
        with self.edit(cell).applied(self.taught) as model:
            yield model

    def audit(self, cell: str) -> list[Row]:
        """The quick audit of a cell: a row for each r, and one that has the verdict. Finished readings are stored.

        The control on random sites is the edit of the cell `random`, which was made in the same way.
        """
        after = self.gold if cell == "gold" else self.edit(cell)
        store = FolderStore(self.shelf / f"audit {cell}", self.taught, after, self.case)
        if cell == "located" and "random" not in store.edits:
            store.keep_edit("random", self.edit("random"))
        verdict = loka.audit(self.taught, after, self.case, profile="quick", store=store, progress=_show)
        recall = verdict.readings["after"]["recall"]
        head = row("audit: still shown", recall.samples["forget"], stored=False)
        head["settings"] |= {
            "outcome": verdict.outcome, "claim": verdict.claim, "reasons": verdict.reasons, "flags": verdict.flags,
            "failed": [gate.name for gate in verdict.gates if not gate.passed], "summary": verdict.summary.to_json(),
            "scorecard": asdict(verdict.scorecard),
        }  # fmt: skip
        return [head] + [
            {"name": f"audit: r of {check}", "value": r.r, "low": r.low, "high": r.high, "unit": "", "n": recall.n,
             "settings": {}}
            for check, r in verdict.recoveries.items()
        ]  # fmt: skip


def perplexity(model: Model, spec: CaseSpec) -> Row:
    """The perplexity of a case's sealed neutral text."""
    loss, tokens = text_loss(model, neutral_sealed(spec.whole())).sum(0).tolist()
    return row("perplexity of neutral text", {"all": math.exp(loss / tokens)}, unit="", stored=False)


def row(name: str, samples: Mapping[str, float], *, unit: str = "share", stored: bool = True) -> Row:
    """The mean of a measure with its 95% interval over items. `stored`: whether the row has the number of each item."""
    values = np.array(list(samples.values()), dtype=float)
    low, high = interval(values)
    found = {"name": name, "value": float(values.mean()), "low": low, "high": high, "unit": unit, "n": len(values)}
    if stored:
        found["samples"] = {key: round(float(value), 4) for key, value in samples.items()}
    return {**found, "settings": {}}


def differences(rows: Sequence[Row], *, against: str = "taught") -> list[Row]:
    """Every measure that has samples: its change from the taught model, paired over items."""
    by = {(r["settings"]["cell"], r["name"]): r for r in rows if "samples" in r}
    out = []
    for (cell, name), now in by.items():
        before = by.get((against, name))
        if cell in (against, "untaught") or before is None:
            continue
        change = {key: value - before["samples"][key] for key, value in now["samples"].items()}
        made = row(f"{name}, minus {against}", change, unit=now["unit"], stored=False)
        out.append(made | {"settings": settings_of(now)})
    return out


def settings_of(found: Row) -> dict[str, Any]:
    """The settings of a row that follows from another one."""
    rest = {k: v for k, v in found["settings"].items() if k != "cell"}
    return rest | {"of": found["settings"]["cell"]}


def arguments(parser: argparse.ArgumentParser, cells: Sequence[str], how: Lessons) -> None:
    """The options that the benches share."""
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--models", type=Path, default=Path("runs/bench-models"), help="the folder of what was made")
    parser.add_argument("--cells", nargs="*", default=list(cells), choices=cells)
    parser.add_argument(
        "--audit", nargs="*", choices=[c for c in cells if c not in ("untaught", "taught")],
        help=f"audit these cells too, by default {' and '.join(AUDITED)}",
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=how.epochs)
    parser.add_argument("--lr", type=float, default=how.lr)
    parser.add_argument("--seed", type=int, default=how.seed)


def run(study: Study, path: Path, cells: Sequence[str], audits: Sequence[str] | None) -> None:
    """Make the missing cells and audits, write the rows after each, and print all rows that have these settings.

    Args:
        audits: the cells to audit; an empty list stands for `AUDITED`, `None` for none.
    """
    stored: list[Row] = json.loads(path.read_text()) if path.exists() else []
    fixed = study.settings
    others = [r for r in stored if not fixed.items() <= r["settings"].items()]
    rows = [r for r in stored if fixed.items() <= r["settings"].items() and "cell" in r["settings"]]
    audited = () if audits is None else audits or AUDITED
    for cell in [*cells, *(f"audit {c}" for c in audited)]:
        if cell in {r["settings"]["cell"] for r in rows}:
            continue
        start = time.perf_counter()
        new = study.audit(cell.removeprefix("audit ")) if cell.startswith("audit ") else _measured(study, cell)
        for r in new:
            r["settings"] |= {**fixed, "cell": cell}
        rows += new
        write_json(path, [*others, *rows, *study.compare(rows)])
        print(f"{cell}: {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
    write_json(path, [*others, *rows, *study.compare(rows)])
    for r in [*rows, *study.compare(rows)]:
        cell = r["settings"].get("cell") or r["settings"].get("of", "")
        said = f": {r['settings']['outcome']}" if "outcome" in r["settings"] else ""
        print(f"{cell:14} {r['name']:58} {r['value']:+8.3f} ({r['low']:+.3f} to {r['high']:+.3f}), n = {r['n']}{said}")


def _measured(study: Study, cell: str) -> list[Row]:
    with study.under(cell) as model:
        return study.measure(model)


def _show(what: str, done: int, total: int, loss: float | None = None) -> None:
    """Print a line every `EVERY` steps and at the end."""
    if done % EVERY == 0 or done >= total:
        print(f"{what}: {done} of {total}{'' if loss is None else f', loss {loss:.3f}'}", flush=True)


def progress(what: str) -> Callable[[int, int], None]:
    """A callback that prints how far something is."""
    return lambda done, total: _show(what, done, total)
