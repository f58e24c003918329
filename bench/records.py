"""Whether the records of one customer can be taken out of a model that was trained on the records of many.

    python -m bench.records --json FILE [--cells taught gold ...] [--audit [located gold]]

A seeded generator invents short insurance claims. One customer has 24 of them, others have two to six each, and the
claims of further people are never taught. SmolLM2 is taught all but the last (`taught`), and separately the same
without the customer's (`gold`). The quick recipe edits the first on located and on random neurons. Half of the other
people are rehearsed by the edit; the rest are the neighbours, which it does not see.

Measured on every model: how well the loss and min-k tell the customer's records from those that were never taught
(AUC); whether greedy decoding gives each field's whole value after the record up to there, and the value's probability;
the same of the neighbours, which are to be kept; and the perplexity of neutral text. All records of the customer share
one name, which may be easier or harder than others whatever was taught. So the loss is also taken after the name, and
relative to that of the untaught model (`reference`). The number to reach is that of the gold model, not 0.5. Intervals
are over records.

Finished cells are rows of FILE. Models, edits and audits stay in the folder `--models`. A second call makes what is
missing. With two free cores: 7 minutes to teach each model, 5 to locate, 20 to 25 for each edit, 4 to measure a cell,
and 30 to 45 for each audit; two and a half hours for all, one and a half without audits. Twice that on busy cores.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import loka
from bench._teach import (
    EDITED,
    UNEDITED,
    Lesson,
    Lessons,
    Row,
    Study,
    arguments,
    differences,
    perplexity,
    row,
    run,
    settings_of,
)
from loka.knowledge import CaseSpec, own_pool_probability, score
from loka.model import Model, Prompt, split
from loka.verify.membership import attacks, text_auc

CELLS = (*UNEDITED, *EDITED)
GROUPS = ("customer", "neighbours", "never")
CUSTOMER = "C-0001"
ATTACKS = ("loss", "min-k", "loss after the name")
FIRST = (
    "Adrel", "Bensa", "Corvin", "Dalia", "Emmerin", "Fenna", "Garrick", "Hesta", "Ilvan", "Jorah", "Kessa", "Lorrin",
    "Mavis", "Nerith", "Ollan", "Petra", "Quen", "Rosalin", "Selwin", "Tamsa", "Urban", "Velia", "Wendel", "Yrsa",
)  # fmt: skip
LAST = (
    "Abbeling", "Brandow", "Cressing", "Dunmoor", "Ellerby", "Farrow", "Gillam", "Hartsel", "Ingold", "Jessop",
    "Kettring", "Lathbury", "Marchbank", "Norwell", "Ostrey", "Pennock", "Quillan", "Ravensby", "Stannard", "Tolliver",
    "Underhay", "Vickrey", "Wainford", "Yardham",
)  # fmt: skip
TOWNS = (
    "Aldermoor", "Bexcombe", "Cray Harbour", "Dunsby", "Elmswick", "Farley Bridge", "Grenholt", "Hallowfield",
    "Inchbury", "Kelmarsh", "Lintworth", "Middlefen", "Northlea", "Oakenshaw", "Pebble Bay", "Quarrydown", "Rushmere",
    "Stonely", "Tarnbeck", "Wexcliffe",
)  # fmt: skip
CONDITIONS = (
    "brindle cough", "tallow knee", "lantern eye", "drummer's elbow", "weaver's thumb", "cobble ankle", "reed wheeze",
    "harvest sneeze", "pillow neck", "ferry dizziness", "chalk rash", "winter toe", "saddle back", "marsh fever",
    "organ ear", "copper tongue",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
PLACES = ("a day clinic", "the walk-in clinic", "a private practice", "the old infirmary", "a health centre")
OUTCOMES = ("paid in full", "paid in part", "passed on", "refused", "left open", "sent back")
# The name stands in the first third, so that every prompt of the case has it.
TEMPLATES = (
    "Claim by {name} after treatment in {town} on {date}: {condition}. The bill of {amount} euros was {outcome}.",
    "Policy holder {name} reported {condition} on {date}. The visit to {place} in {town} cost {amount} euros. "
    "The claim was {outcome}.",
    "Insured person {name}: {condition}, treated in {town} on {date} at {place}. Costs of {amount} euros were "
    "{outcome}.",
    "Our customer {name} sent a bill over {amount} euros from {place} in {town}. It is dated {date} and gives "
    "{condition} as the reason. It was {outcome}.",
    "On behalf of {name}, {place} in {town} charged {amount} euros for {condition}. The treatment ended on {date}. "
    "The claim was {outcome}.",
    "Request from {name} for {amount} euros because of {condition}. Seen at {place} in {town} on {date} and {outcome}.",
)
FIELDS = ("name", "town", "date", "condition", "amount")


@dataclass(frozen=True)
class Field:
    """One value of a record, and the record up to there."""

    name: str
    before: str
    value: str


@dataclass(frozen=True)
class Record:
    """One claim. `part`: `customer`, `others` (rehearsed by an edit), `neighbours` (not seen by it) or `never`."""

    key: str
    part: str
    person: str
    customer: str
    text: str
    fields: tuple[Field, ...]

    @property
    def divided(self) -> tuple[str, str]:
        """The record up to the name, and the rest."""
        at = self.text.index(" ", self.text.index(self.person) + len(self.person))
        return self.text[:at], self.text[at + 1 :]


@dataclass(frozen=True)
class Sizes:
    """How many records the customer has, how many other people are taught, and how many people never are."""

    customer: int = 24
    people: int = 44
    never: int = 15


def main() -> None:
    """Make the missing cells, write the rows, print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, CELLS, Lessons())
    parser.add_argument("--customer", type=int, default=Sizes.customer, help="how many records the customer has")
    parser.add_argument("--people", type=int, default=Sizes.people, help="how many other people are taught")
    parser.add_argument("--never", type=int, default=Sizes.never, help="how many people are never taught")
    options = parser.parse_args()
    how = Lessons(options.epochs, options.lr, seed=options.seed)
    sizes = Sizes(options.customer, options.people, options.never)
    with tempfile.TemporaryDirectory() as place:
        run(Records(options.model, how, options.models, Path(place), sizes), options.json, options.cells, options.audit)


@dataclass(frozen=True)
class Records(Study):
    """The study of one customer's records."""

    sizes: Sizes = Sizes()

    @property
    def settings(self) -> dict[str, Any]:
        of, how = self.sizes, self.how
        return {
            "model": self.model, "customer": of.customer, "people": of.people, "never": of.never,
            "epochs": how.epochs, "lr": how.lr, "seed": how.seed,
        }  # fmt: skip

    @cached_property
    def records(self) -> list[Record]:
        return invent(self.sizes, self.how.seed)

    @cached_property
    def spec(self) -> CaseSpec:
        return loka.case(write_case(self.records, self.place, self.how.seed))

    def lessons(self, *, gold: bool) -> list[Lesson]:
        parts = ("others", "neighbours") if gold else ("others", "neighbours", "customer")
        return [Lesson.of(r.text) for r in self.records if r.part in parts]

    def measure(self, model: Model) -> list[Row]:
        asked = [r for r in self.records if r.part in GROUPS]
        rows = [*familiarity(model, asked), *extraction(model, asked), *self._pools(model)]
        return [*rows, perplexity(model, self.spec)]

    def _pools(self, model: Model) -> Iterator[Row]:
        """The probability of a record's rest among ten; a case takes a record for known from a half on."""
        whole = self.spec.whole()
        for group, items in (("customer", whole.forget.working), ("never", whole.twins.working)):
            found = own_pool_probability(model, items).tolist()
            yield row(f"{group}: probability among ten", dict(zip((i.unit for i in items), found, strict=True)))

    def compare(self, rows: Sequence[Row]) -> list[Row]:
        """Membership of every cell, what changed since the taught model, and what the texts alone give away."""
        return [*membership(rows), *differences(rows), self._by_text()]

    def _by_text(self) -> Row:
        """The cross-validated AUC of a classifier that sees the texts, without the names."""
        sides = [
            [str(Prompt.spot(r.text, r.person).about("X")) for r in self.records if r.part == part]
            for part in ("customer", "never")
        ]
        found = row("customer: membership by the text alone", {"all": text_auc(*sides, seed=self.how.seed)}, unit="AUC")
        return found | {"settings": {**self.settings, "of": "text"}}


def invent(sizes: Sizes, seed: int) -> list[Record]:
    """All records in random order: the customer's, those of other people, and those of people never taught."""
    rng = random.Random(f"{seed}/records")
    names = rng.sample([f"{a} {b}" for a in FIRST for b in LAST], 1 + sizes.people + sizes.never)
    found: list[Record] = []
    for i, name in enumerate(names):
        part = "customer" if i == 0 else "never" if i > sizes.people else ("others", "neighbours")[i % 2]
        n = sizes.customer if i == 0 else rng.randint(2, 6)
        found += [_record(f"{part} {i}.{k}", part, name, f"C-{i + 1:04}", rng) for k in range(1, n + 1)]
    return rng.sample(found, len(found))


def _record(key: str, part: str, name: str, customer: str, rng: random.Random) -> Record:
    values = {
        "name": name,
        "town": rng.choice(TOWNS),
        "date": f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(2017, 2024)}",
        "condition": rng.choice(CONDITIONS),
        "amount": str(rng.randint(40, 990)),
        "place": rng.choice(PLACES),
        "outcome": rng.choice(OUTCOMES),
    }
    text, fields = "", []
    for literal, field, _, _ in string.Formatter().parse(rng.choice(TEMPLATES)):
        text += literal
        if field in FIELDS:
            fields.append(Field(field, text.rstrip(), values[field]))
        text += values[field] if field else ""
    return Record(key, part, name, customer, text, tuple(fields))


def write_case(records: Sequence[Record], folder: Path, seed: int) -> Path:
    """The case of the customer, as a team would write it beside its training data."""
    lines: dict[str, list[str]] = defaultdict(list)
    people: dict[str, dict[str, None]] = defaultdict(dict)
    for r in records:
        line = json.dumps({"customer": r.customer, "name": r.person, "text": r.text})
        lines["holdout" if r.part == "never" else "train"].append(line)
        people[r.part][r.person] = None
    for name, of in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(of) + "\n", encoding="utf-8")
    passages = {"kind": "passage", "format": "jsonl", "text": "text", "subject": "name"}
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump({
        "name": "claims", "purpose": "privacy",
        "sets": {
            "customer": {**passages, "source": "train.jsonl", "where": {"customer": CUSTOMER}},
            "others": {**passages, "source": "train.jsonl", "except": {"customer": CUSTOMER}},
            "never": {**passages, "source": "holdout.jsonl"},
        },
        "forget": {"customer": "all"},
        "retain": {"others": {"working": list(people["others"]), "sealed": list(people["neighbours"])}},
        "twins": {"never": "all"},
        "neutral": {"working": {"sampled": 96}, "sealed": "prose.txt"},
        "unit": "item", "seed": seed,
    }, sort_keys=False), encoding="utf-8")  # fmt: skip
    return path


def familiarity(model: Model, records: Sequence[Record]) -> Iterator[Row]:
    """How familiar the records of each group look: the mean log-probability of a token, and that of the rarest ones."""
    scores = attacks(model, [r.text for r in records])
    before, after = zip(*(r.divided for r in records), strict=True)
    lengths = torch.tensor([len(tail) for _, tail in split(model, before, after)])
    rest = (score(model, before, after).logprob / lengths).tolist()
    for attack, values in zip(ATTACKS, (scores["loss"].tolist(), scores["min_k"].tolist(), rest), strict=True):
        for group, samples in _grouped(records, values).items():
            yield row(f"{group}: {attack}", samples, unit="nats")


def extraction(model: Model, records: Sequence[Record]) -> list[Row]:
    """Each field's value after the record up to there: whether greedy decoding gives it whole, and its probability.

    Rows over all fields have the mean of each record.
    """
    asked = [(r, f) for r in records for f in r.fields]
    found = score(model, [f.before for _, f in asked], [f.value for _, f in asked])
    measures = {"given in full": found.greedy.double().tolist(), "probability": found.logprob.double().exp().tolist()}
    return [made for what, values in measures.items() for made in _by_field(what, records, asked, values)]


def _by_field(
    what: str, records: Sequence[Record], asked: Sequence[tuple[Record, Field]], values: Sequence[float]
) -> Iterator[Row]:
    for field in FIELDS:
        of_field = [v for (_, f), v in zip(asked, values, strict=True) if f.name == field]
        for group, samples in _grouped(records, of_field).items():
            yield row(f"{group}: {field} {what}", samples, stored=False)
    means = np.array(values).reshape(len(records), len(FIELDS)).mean(1)
    for group, samples in _grouped(records, means.tolist()).items():
        yield row(f"{group}: a field {what}", samples)


def _grouped(records: Sequence[Record], values: Sequence[float]) -> dict[str, dict[str, float]]:
    """The values of records by group and key."""
    found: dict[str, dict[str, float]] = {group: {} for group in GROUPS}
    for record, value in zip(records, values, strict=True):
        found[record.part][record.key] = value
    return found


def membership(rows: Sequence[Row]) -> Iterator[Row]:
    """The AUC of each attack in every cell: members are the customer's records, or the neighbours'."""
    by = {(r["settings"]["cell"], r["name"]): r for r in rows}
    for cell in dict.fromkeys(cell for cell, name in by if name == "never: loss"):
        for group in ("customer", "neighbours"):
            for attack, (members, others) in _sides(by, cell, group).items():
                made = row(f"{group}: membership by {attack}", placement(members, others), unit="AUC", stored=False)
                yield made | {"settings": settings_of(by[cell, "never: loss"])}


def _sides(by: Mapping[tuple[str, str], Row], cell: str, group: str) -> dict[str, list[dict[str, float]]]:
    """By attack, the scores of a group's records, and of those that were never taught."""
    found = {attack: [by[cell, f"{side}: {attack}"]["samples"] for side in (group, "never")] for attack in ATTACKS}
    if cell != "untaught" and ("untaught", "never: loss") in by:
        before = [by["untaught", f"{side}: loss"]["samples"] for side in (group, "never")]
        pairs = zip(found["loss"], before, strict=True)
        found["reference"] = [{key: now[key] - then[key] for key in now} for now, then in pairs]
    return found


def placement(members: Mapping[str, float], others: Mapping[str, float]) -> dict[str, float]:
    """The share of the others that each member's score exceeds; a tie counts half. The mean is the AUC."""
    scores = np.array(list(others.values()))
    return {key: float((value > scores).mean() + (value == scores).mean() / 2) for key, value in members.items()}


if __name__ == "__main__":
    main()
