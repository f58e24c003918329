"""The records of a case as a benchmark asks them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...knowledge import Case, Item, Record


@dataclass(frozen=True)
class Asked:
    """A record of a case as a benchmark asks it: its set, its items, and the record unless it is a relation's fact."""

    set: str
    items: tuple[Item, ...]
    record: Record | None = None


Groups = dict[str, list[Asked]]


def sources(case: Case) -> dict[str, list[str]]:
    """The benchmarks and data sets that a case forgets from, each with its sets to forget."""
    file, found = case.spec.file, {}
    for name in file.forget:
        make = file.sets[name].benchmark if name in file.sets else None
        if make:
            found.setdefault(make, []).append(name)
    return found


def asked_of(case: Case, items: Sequence[Item]) -> list[Asked]:
    """The records that items belong to, each by its working prompts; a relation's fact by the prompt that it has."""
    wanted, own, found = set(items), set(), []
    for name, entries in case.spec.sets.items():
        for entry in entries:
            if not wanted.isdisjoint(entry.items):
                found.append(Asked(name, entry.working, entry.record))
                own.update(entry.items)
    return found + [Asked(i.relation, (i.asked(i.prompt),)) for i in dict.fromkeys(items) if i not in own]


def to_forget(case: Case, make: str) -> list[Asked]:
    """The records to forget of a benchmark's sets."""
    names = sources(case)[make]
    return [a for a in asked_of(case, (*case.forget.working, *case.forget.sealed)) if a.set in names]


def to_retain(case: Case) -> list[Asked]:
    """The sealed records to retain."""
    return asked_of(case, case.retain.sealed)


def items_of(group: Iterable[Asked]) -> list[Item]:
    """The items of a group, in order."""
    return [item for a in group for item in a.items]


def of_kind(group: Iterable[Asked], kind: str) -> list[Asked]:
    """The records of one kind."""
    return [a for a in group if a.items[0].kind == kind]


def sets_of(groups: Groups) -> dict[str, list[str]]:
    """The sets of the case that each group comes from, without empty groups."""
    return {name: list(dict.fromkeys(a.set for a in group)) for name, group in groups.items() if group}
