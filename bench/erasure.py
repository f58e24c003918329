"""The insurer's case: one customer's claims are taken out of a model by `loka erase`, from intake to the next retrain.

    python -m bench.erasure --json FILE [--seeds 0 1 2] [--audit]

A seeded generator invents short insurance claims (`bench.records`). One customer has 47, two dozen others have two to
six each. SmolLM2 is taught all of them (`taught`). The customer asks for erasure, and the request goes through the
commands of `loka erase`, as they are typed. Three months later the model is trained again from the start, on the data
that `loka erase exclude` let through (`retrained`): what an exact erasure gives.

Cells: `untaught`, `taught`, `erased` (by the commands), `ascent` (the classic of Jang et al. 2022: three epochs, a
retain term of 0.5), `ascent alone` (without retain terms), `retrained`.

Measured on each: the AUC of the loss between the customer's claims and those of people who were never taught, of whom
no edit sees anything; the name is not scored. The share of fields that greedy decoding gives in full after the claim
up to there, and their probability, for the customer, for other customers and for people never taught. How many of the
claims to keep the model still shows (`collateral`, as the safeguards of `execute` measure it). The perplexity of
neutral text. Intervals of a seed are over claims; rows over all seeds have the lowest and the highest seed.

`--audit` adds what `loka erase verify` says of `erased`, and the same audit of `retrained`, for the first seed.

Finished cells are rows of FILE; models and registers stay in the folder `--models`. A second call makes what is
missing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

import numpy as np
import yaml

import loka
from bench._teach import Lesson, Lessons, Row, progress, row, teach_
from bench._teach import _show as show
from bench.records import Record, Sizes, extraction, invent, placement
from loka._util.errors import UserError
from loka._util.files import write_json
from loka.ablate import TrainingConfig
from loka.cli import main as command_line
from loka.erasure import Register
from loka.erasure.assessment import impact_of
from loka.erasure.material import Material, case_of
from loka.knowledge import Case
from loka.model import Edit, Model, Prompt, export
from loka.verify.membership import attacks

SIZES = Sizes(customer=47, people=24, never=16)
CELLS = ("untaught", "taught", "erased", "ascent", "ascent alone", "retrained")
LESSONS = Lessons(epochs=5, lr=1e-4)
METHOD = "ascent"
CLASSIC = TrainingConfig("ascent", steps=3, lr=5e-5, retain_weight=0.5, neutral_weight=0.5, warm_up=0)
REASON = "training the model again takes weeks"


@dataclass(frozen=True)
class Insurer:
    """One seed: the claims, the models and the register, all in one folder. What is missing is made when it is used."""

    model: str
    how: Lessons
    folder: Path

    @cached_property
    def claims(self) -> list[Record]:
        return invent(SIZES, self.how.seed)

    @cached_property
    def holdout(self) -> list[Record]:
        """The claims that the insurer holds out: half of the people who were never taught."""
        return [r for r in self._of("never") if r.person in self._held_out]

    @cached_property
    def unseen(self) -> list[Record]:
        """The claims of the other half, which no command reads."""
        return [r for r in self._of("never") if r.person not in self._held_out]

    @cached_property
    def _held_out(self) -> set[str]:
        return set(sorted({r.person for r in self._of("never")})[::2])

    def _of(self, *parts: str) -> list[Record]:
        return [r for r in self.claims if r.part in parts]

    @cached_property
    def train(self) -> Path:
        return self._write("train.jsonl", self._of("customer", "others", "neighbours"))

    @cached_property
    def never(self) -> Path:
        return self._write("never.jsonl", self.holdout)

    def _write(self, name: str, claims: Sequence[Record]) -> Path:
        path = self.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = (
            json.dumps({"customer": r.customer, **{f.name: f.value for f in r.fields}, "text": r.text}) for r in claims
        )
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    @cached_property
    def untaught(self) -> Model:
        return loka.load(self.model)

    @cached_property
    def taught(self) -> Model:
        return self._learned("taught", self.train)

    @cached_property
    def retrained(self) -> Model:
        """The model of three months later, from the data that the exclusion list let through."""
        self.request()
        return self._learned("retrained", self.folder / "next.jsonl")

    def _learned(self, name: str, data: Path) -> Model:
        folder = self.folder / name
        if not folder.exists():
            lessons = [Lesson.of(json.loads(line)["text"]) for line in data.read_text(encoding="utf-8").splitlines()]
            model = loka.load(self.model)
            say = progress(f"{name}, {len(lessons)} claims")
            seconds = teach_(
                model, [t.prompt for t in lessons], [t.answer for t in lessons], self.how, lambda i, n, _: say(i, n)
            )
            print(f"{name}: taught in {seconds / 60:.1f} minutes", flush=True)
            export(model, folder)
        return loka.load(str(folder))

    def request(self) -> str:
        """Take the customer's request through the commands, once, up to the data of the next training."""
        id, status = self._status()
        self.taught  # the model that the commands name
        if not status:
            order = self._order()
            self.erase("new", order)
            order.unlink()
        if status in ("", "received"):
            self.erase(
                "assess", id, "--data", self.train, "--folder", self.folder / "taught", *self._model, *self._records
            )
        if status in ("", "received", "assessed"):
            self.erase("choose", id, "--method", METHOD, "--reason", REASON)
        if status in ("", "received", "assessed", "chosen"):
            self.erase("execute", id, *self._material)
        if not (self.folder / "next.jsonl").exists():
            self.erase("exclude", "--add", id, "--data", self.train)
            self.erase("exclude", "--data", self.train, "--out", self.folder / "next.jsonl")
            self.erase("status", "--html", self.folder / "register.html")
            self.erase("audit")
        return id

    def _status(self) -> tuple[str, str]:
        """The request's id and status; an empty one before it was logged."""
        try:
            with Register(self.folder / "register") as register:
                return (first := register.requests()[0]).id, first.status
        except (UserError, IndexError):
            return f"ER-{date.today().year}-0001", ""

    def _order(self) -> Path:
        customer, path = self._of("customer")[0], self.folder / "request.yaml"
        path.write_text(yaml.safe_dump({
            "received": date.today().isoformat(), "channel": "e-mail", "ground": "b",
            "person": {"name": customer.person, "identifiers": [customer.customer]},
            "identity": {"verified": date.today().isoformat(), "how": "reply from the address on file"},
        }), encoding="utf-8")  # fmt: skip
        return path

    def verified(self, id: str) -> Row:
        """What `loka erase verify` says of the edit; then the documents, the purge, and the end of the request."""
        self.erase("verify", id, *self._material)
        verdict = json.loads((self.folder / "run" / "verdict.json").read_text())
        self.erase("document", id, "--out", self.folder / "documents", "--verdict", self.folder / "run/verdict.json")
        self.erase("replay", id, "--model", self.folder / "taught", "--out", self.folder / "restored")
        self.erase("close", id, "--reason", "done")
        self.erase("audit")
        return audit_row(verdict["outcome"], verdict["reasons"], verdict["summary"])

    def audit(self, cell: str) -> Row:
        """The audit of `audit erased` by the commands, or the same audit of the retrained model."""
        if cell == "audit erased":
            return self.verified(self.request())
        verdict = loka.audit(self.taught, self.retrained, self.case, profile="quick", progress=show)
        return audit_row(verdict.outcome, verdict.reasons, verdict.summary.to_json())

    @property
    def _model(self) -> tuple[object, ...]:
        return "--model", self.folder / "taught"

    @property
    def _records(self) -> tuple[object, ...]:
        return "--holdout", self.never, "--field", "text", "--subject", "name"

    @property
    def _material(self) -> tuple[object, ...]:
        return *self._model, "--data", self.train, *self._records, "--out", self.folder / "run"

    def erase(self, *arguments: object) -> str:
        """Run one command of `loka erase`, print and return what it prints; any exit status but 0 ends the bench."""
        words = ["loka", "erase", *map(str, arguments)]
        places = {"LOKA_REGISTER": str(self.folder / "register"), "COLUMNS": "160"}
        start, printed = time.perf_counter(), io.StringIO()
        with patch.object(sys, "argv", words), patch.dict("os.environ", places), contextlib.redirect_stdout(printed):
            try:
                command_line()
            except SystemExit as end:
                status = end.code or 0
        print(f"$ {' '.join(words)}   ({time.perf_counter() - start:.0f} s)\n{printed.getvalue()}", flush=True)
        if status:
            raise SystemExit(f"the command ended with status {status}")
        return printed.getvalue()

    @cached_property
    def case(self) -> Case:
        """The case of the request, as `execute` and `verify` have it."""
        id = self.request()
        material = Material((self.train,), (self.never,), "text", "name")
        with Register(self.folder / "register") as register:
            return case_of(id, impact_of(register, id), material).whole()

    @contextlib.contextmanager
    def under(self, cell: str) -> Iterator[Model]:
        """The model of a cell."""
        if cell in ("untaught", "taught", "retrained"):
            yield getattr(self, cell)
        else:
            with self._edit(cell).applied(self.taught) as model:
                yield model

    def _edit(self, cell: str) -> Edit:
        if cell == "erased":
            self.request()
            return Edit.load(self.folder / "run" / "edit.safetensors")
        path = self.folder / f"{cell}.safetensors"
        if not path.exists():
            config = CLASSIC if cell == "ascent" else replace(CLASSIC, retain_weight=0.0, neutral_weight=0.0)
            loka.ablate.tune(self.taught, self.case, None, config).save(path)
        return Edit.load(path)

    def measure(self, cell: str) -> list[Row]:
        """The rows of a cell."""
        with self.under(cell) as model:
            others = [replace(r, part="neighbours") for r in self._of("others", "neighbours")]
            rows = [*self._membership(model), *extraction(model, [*self._of("customer"), *others, *self.unseen])]
            kept = loka.verify.collateral(model, self.case)
        rows.append(row("claims to keep, still shown", kept.samples["forget"], stored=False))
        rows.append(
            row("perplexity of neutral text", {"all": float(kept.details["perplexity"])}, unit="", stored=False)
        )
        return rows

    def _membership(self, model: Model) -> Iterator[Row]:
        groups = {"customer": self._of("customer"), "other customers": self._of("others", "neighbours")}
        never = self._familiarity(model, self.unseen)
        for group, claims in groups.items():
            yield row(f"{group}: AUC of the loss", placement(self._familiarity(model, claims), never), unit="AUC")

    def _familiarity(self, model: Model, claims: Sequence[Record]) -> dict[str, float]:
        scores = attacks(model, [Prompt.spot(r.text, r.person) for r in claims])["loss"]
        return dict(zip((r.key for r in claims), scores.tolist(), strict=True))


def audit_row(outcome: str, reasons: Sequence[str], summary: dict[str, object]) -> Row:
    """The row of an audit: whether the claims are still shown, with the verdict among the settings."""
    made = row("audit: still shown", {"all": float(summary["forget_after"])}, stored=False)  # type: ignore[arg-type]
    made["settings"] = {"outcome": outcome, "reasons": list(reasons), "summary": summary}
    return made


def main() -> None:
    """Make the missing cells of all seeds, write the rows, print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--models", type=Path, default=Path("runs/bench-models"), help="the folder of what was made")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=CELLS)
    parser.add_argument("--audit", action="store_true", help="audit `erased` and `retrained` of the first seed, too")
    options = parser.parse_args()
    rows: list[Row] = json.loads(options.json.read_text()) if options.json.exists() else []
    rows = [r for r in rows if "seed" in r["settings"]]
    for seed in options.seeds:
        how = replace(LESSONS, seed=seed)
        study = Insurer(options.model, how, options.models / f"erasure-{seed}")
        audits = ["audit erased", "audit retrained"] if options.audit and seed == options.seeds[0] else []
        for cell in [*options.cells, *audits]:
            if (seed, cell) in {(r["settings"]["seed"], r["settings"]["cell"]) for r in rows}:
                continue
            start = time.perf_counter()
            new = [study.audit(cell)] if cell.startswith("audit ") else study.measure(cell)
            for r in new:
                r["settings"] |= {"model": options.model, "seed": seed, "cell": cell}
            rows += new
            write_json(options.json, [*rows, *over_seeds(rows)])
            print(f"seed {seed}, {cell}: {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
    for r in over_seeds(rows):
        print(f"{r['settings']['cell']:16} {r['name']:46} {r['value']:8.3f} ({r['low']:.3f} to {r['high']:.3f})")


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """The mean of each measure of a cell over the seeds, with the lowest and the highest."""
    found: dict[tuple[str, str], list[Row]] = {}
    for r in rows:
        found.setdefault((r["settings"]["cell"], r["name"]), []).append(r)
    out = []
    for (cell, name), of in found.items():
        values = [r["value"] for r in of]
        settings = {"model": of[0]["settings"]["model"], "cell": cell, "seeds": len(of)}
        out.append({
            "name": name, "value": float(np.mean(values)), "low": min(values), "high": max(values),
            "unit": of[0]["unit"], "n": len(of), "settings": settings,
        })  # fmt: skip
    return out


if __name__ == "__main__":
    main()
