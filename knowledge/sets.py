"""The sets of a case: their records as items for both parts, with wrong answers to compare with."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._util.errors import UserError
from .._util.records import read_record
from .draw import draw
from .formats import read_records
from .item import Item, Kind
from .kinds import KINDS, Record
from .places import Places
from .rivals import Spellings
from .rows import is_hub_id
from .schema import CaseFile, ItemSet
from .texts import fault_of, spelled_alike

FOILS = 9
LISTED = 10  # problems that one error lists


@dataclass(frozen=True)
class Entry:
    """One record of a set as items. `key` is its place in the set, `unit` the unit of resampling."""

    key: str
    unit: str
    record: Record
    working: tuple[Item, ...]
    sealed: tuple[Item, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        return (*self.working, *self.sealed)

    def named(self, names: Sequence[str]) -> bool:
        """Whether a list in the case file names this entry, by its subject or its place."""
        return self.key in names or spelled_alike(self.record.subject) in map(spelled_alike, names)


Sets = Mapping[str, tuple[Entry, ...]]


def read_sets(file: CaseFile, places: Places) -> dict[str, tuple[Record, ...]]:
    """The records of every set of a case file; sources are relative to its folder.

    Raises:
        UserError: sources that cannot be read, or sets that overlap. The message lists all of them.
    """
    found: dict[str, tuple[Record, ...]] = {}
    problems: list[str] = []
    for name, of in file.sets.items():
        try:
            found[name] = _records(name, of, places)
        except UserError as error:
            problems.append(f"sets.{name}: {error}")
    problems += _overlaps(file, found)
    if problems:
        listed = "\n".join(f"  - {p}" for p in problems)
        raise UserError(f"the sets of the case file {str(places.file)!r} have {len(problems)} error(s):\n{listed}")
    return found


def entries(file: CaseFile, records: Mapping[str, Sequence[Record]]) -> dict[str, tuple[Entry, ...]]:
    """Every set's records as items, with foils where the source gives none.

    Foils of a passage are what other texts say in its place, those of a question the answers to others: of the sets
    that were never taught where there are any, so that one that was taught does not look better for being fluent.

    Raises:
        UserError: records with texts that no item can have (`texts.fault_of`).
    """
    _check_items(records)
    plain = {name: _entries(file, name, of) for name, of in records.items()}
    return {name: tuple(_with_foils(file, name, plain)) for name in plain}


def _records(name: str, of: ItemSet, places: Places) -> tuple[Record, ...]:
    if of.items:
        kind: Any = KINDS[of.kind].record
        return tuple(read_record(kind, row, f"item {i + 1}") for i, row in enumerate(of.items))
    assert of.source is not None
    return read_records(
        of.format, _source(of.source, places), kind=of.kind, fields=of.fields, where=of.where, except_=of.except_,
        config=of.config, split=of.split,
    )  # fmt: skip


def _source(source: str, places: Places) -> str:
    """A file inside the case's folders, or a hub id, which has one slash and no suffix of a data file."""
    found = places.find(source)
    return source if found is None and is_hub_id(source) else str(found or places.folder / source)


def _overlaps(file: CaseFile, records: Mapping[str, Sequence[Record]]) -> list[str]:
    """Records that stand in two sets of different roles, word for word or but for spaces and Unicode form."""
    roles = {"forget": file.forget, "retain": file.retain, "twins": file.twins, "downstream": file.downstream}
    first: dict[str, tuple[str, str, int]] = {}
    problems: dict[tuple[str, str], list[str]] = {}
    for role, named in roles.items():
        for name in named:
            for i, record in enumerate(records.get(name, ())):
                seen = first.setdefault(spelled_alike(record.identity), (role, name, i))
                if seen[0] != role and seen[1] != name:
                    problems.setdefault((seen[1], name), []).append(f"{i + 1} ({record.identity[:60]!r})")
    return [
        f"sets.{b}: {len(rows)} item(s) stand in {a} too, such as number {rows[0]}; keep each in one set"
        for (a, b), rows in problems.items()
    ] + _divided_subjects(file, records)


def _divided_subjects(file: CaseFile, records: Mapping[str, Sequence[Record]]) -> list[str]:
    """Subjects that are units and stand in sets of different roles, so that a unit would be on both sides."""
    if file.unit != "subject":
        return []
    roles = {"forget": file.forget, "retain": file.retain, "twins": file.twins}
    first: dict[str, tuple[str, str]] = {}
    problems: dict[tuple[str, str], list[str]] = {}
    for role, named in roles.items():
        for name in named:
            for subject in dict.fromkeys(spelled_alike(r.subject) for r in records.get(name, ()) if r.subject):
                seen = first.setdefault(subject, (role, name))
                if seen[0] != role and seen[1] != name:
                    problems.setdefault((seen[1], name), []).append(subject)
    return [
        f"sets.{b}: {subjects[0]!r} is the subject of items in {a} too, and a subject as a unit is on one side; move "
        "its items, or set unit: item"
        for (a, b), subjects in problems.items()
    ]


def _check_items(records: Mapping[str, Sequence[Record]]) -> None:
    """Refuse records whose subject, relation or answers no item can have."""
    problems = [
        f"sets.{name}: item {i}: {problem}"
        for name, of in records.items()
        for i, record in enumerate(of, 1)
        for problem in _faults(record)
    ]
    if problems:
        listed = "\n".join(f"  - {p}" for p in problems[:LISTED])
        raise UserError(f"the sets have {len(problems)} item(s) that cannot be asked:\n{listed}")


def _faults(record: Record) -> Iterator[str]:
    given: Any = record
    for field in ("subject", "relation"):
        if (text := getattr(given, field, "")) and (fault := fault_of(text, name=field == "relation")):
            yield f"the {field} {fault}"
    for field in ("answer", "foil", "aliases", "foils", "wrong", "options"):
        value = getattr(given, field, ())
        for text in [value] if isinstance(value, str) else value:
            if fault := fault_of(text):
                yield f"{field} has {fault}" if not isinstance(value, str) else f"the {field} {fault}"


def _entries(file: CaseFile, name: str, records: Sequence[Record]) -> list[Entry]:
    of, width = file.sets[name], len(str(len(records)))
    by_subject = file.unit == "subject" or (file.unit is None and of.kind == "fact")
    out = []
    for i, record in enumerate(records):
        key = f"{i + 1:0{width}}"
        unit = spelled_alike(record.subject) if by_subject and record.subject else key
        parts = (tuple(make(name, unit, of.frame)) for make in (record.working, record.sealed))
        out.append(Entry(key, unit, record, *parts))
    return out


def _with_foils(file: CaseFile, name: str, sets: Mapping[str, Sequence[Entry]]) -> Iterator[Entry]:
    """The entries with foils for every item that has none, and with rivals."""
    bank: dict[Kind, _Bank] = {kind: _Bank(items) for kind, items in _bank(file, name, sets).items()}
    spellings = _spellings(sets[name])
    for entry in sets[name]:
        rng = random.Random(f"{file.seed}/{file.name}/foils/{name}/{entry.key}")
        sides = ([_with_wrong_answers(item, bank, spellings, rng) for item in side]
                 for side in (entry.working, entry.sealed))  # fmt: skip
        yield dataclasses.replace(entry, **dict(zip(("working", "sealed"), map(tuple, sides), strict=True)))


class _Bank:
    """Items whose answers are foils of others: of a fact, those of its relation; of other kinds, of another unit."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.every = sorted({item.answer for item in items})
        self.owners: dict[str, set[tuple[str, str]]] = {}
        self.by_relation: dict[str, set[str]] = {}
        self.by_owner: dict[tuple[str, str], set[str]] = {}
        for item in items:
            owner = item.relation, item.unit
            self.owners.setdefault(item.answer, set()).add(owner)
            self.by_relation.setdefault(item.relation, set()).add(item.answer)
            self.by_owner.setdefault(owner, set()).add(item.answer)
        self.pools = {relation: sorted(answers) for relation, answers in self.by_relation.items()}

    def foils(self, item: Item, rng: random.Random) -> tuple[str, ...]:
        """Foils of an item, drawn at random."""
        if KINDS[item.kind].shared:
            return draw(self.pools.get(item.relation, ()), FOILS, rng, without=item.answers)
        owner = item.relation, item.unit
        own = {answer for answer in self.by_owner.get(owner, ()) if self.owners[answer] == {owner}}
        return draw(self.every, FOILS, rng, without={*own, *item.answers})


def _with_wrong_answers(
    item: Item, bank: Mapping[Kind, _Bank], spellings: Mapping[str, Spellings], rng: random.Random
) -> Item:
    foils = item.foils or (bank[item.kind].foils(item, rng) if item.kind in bank else ())
    rivals = spellings[item.relation].rivals(item.answers) if item.relation in spellings else ()
    return dataclasses.replace(item, foils=foils, rivals=rivals)


def _spellings(entries: Sequence[Entry]) -> dict[str, Spellings]:
    """Every answer, alias and given foil of the items that share a pool, by relation."""
    found: dict[str, list[Item]] = {}
    for item in (i for entry in entries for i in entry.items if KINDS[i.kind].shared):
        found.setdefault(item.relation, []).append(item)
    return {r: Spellings([i.answers for i in of], (f for i in of for f in i.foils)) for r, of in found.items()}


def _bank(file: CaseFile, name: str, sets: Mapping[str, Sequence[Entry]]) -> dict[Kind, list[Item]]:
    """Items to take foils from: of the never-taught sets, or of the set itself, or of all sets, if there are two units.

    Foils of a fact come from its own set.
    """
    own = [item for entry in sets[name] for item in entry.items]
    never = [item for twin in file.twins for entry in sets.get(twin, ()) for item in entry.items]
    every = [item for of in sets.values() for entry in of for item in entry.items]
    bank: dict[Kind, list[Item]] = {}
    for candidates in (never, own, every):
        kinds: set[Kind] = {item.kind for item in candidates}
        for kind in kinds - set(bank):
            found = [item for item in (own if KINDS[kind].shared else candidates) if item.kind == kind]
            if len({(item.relation, item.unit) for item in found}) > 1:
                bank[kind] = found
    return bank
