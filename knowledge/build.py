"""Build the facts of a case from its file, as far as a model knows them."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from .._util.errors import UserError
from .fact import Fact, readable
from .invent import invent
from .schema import CaseFile

FOILS = 9
T = TypeVar("T")
Known = Collection[tuple[str, str]]


@dataclass(frozen=True)
class Split(Generic[T]):
    """`working` is the part that locating and editing may see, `sealed` the part that verifying reports on."""

    working: T
    sealed: T


Facts = Split[tuple[Fact, ...]]


@dataclass(frozen=True)
class Parts:
    """The facts of a case: to forget, to retain, twins, and those of the forgotten relations that are not known."""

    forget: Facts
    retain: Facts
    twins: Facts
    unknown: tuple[Fact, ...]


def build(file: CaseFile, known: Known) -> Parts:
    """Divide a file's facts into parts; facts to forget and to retain are among the `known` (relation, subject).

    Raises:
        UserError: none of the facts to forget is known, or fewer than the file asks for.
    """
    forget = {r: _subjects_to_forget(file, r, known) for r in file.forget}
    retain = {r: _subjects_to_retain(file, r, set(forget.get(r, ())), known) for r in file.retain}
    twins = {r: _twin_answers(file, r) for r in file.twins}
    unknown = [(r, s) for r in file.forget for s in file.relations[r].facts if (r, s) not in known]
    return Parts(
        _facts(file, {r: Split(subjects, subjects) for r, subjects in forget.items()}),
        _facts(file, retain),
        Split(*(tuple(_twin(file, r, s, a, part) for r, answers in twins.items() for s, a in answers.items())
                for part in ("working", "sealed"))),
        tuple(make_fact(file, r, s, file.relations[r].working) for r, s in unknown),
    )  # fmt: skip


def make_fact(file: CaseFile, relation: str, subject: str, templates: list[str]) -> Fact:
    """The fact about a subject, with prompts from these templates."""
    answer, *aliases = file.relations[relation].facts[subject]
    prompt, *others = (t.replace("{}", subject) for t in templates)
    foils = _foils(file, relation, subject, {answer, *aliases})
    return Fact(subject, relation, prompt, answer, tuple(aliases), foils, tuple(others))


def seeded(file: CaseFile, *what: str) -> random.Random:
    """A random generator seeded by the file's seed, its name, and a label of what is drawn."""
    return random.Random("/".join((str(file.seed), file.name, *what)))


def _subjects_to_forget(file: CaseFile, relation: str, known: Known) -> list[str]:
    wanted = file.forget[relation]
    facts = file.relations[relation].facts
    if isinstance(wanted, list):
        found = [s for s in wanted if (relation, s) in known]
        if not found:
            raise UserError(
                f"the model knows none of the {len(wanted)} {relation} facts to forget; name facts it knows."
            )
        return found
    retained = _named_retain(file, relation)
    able = [s for s, a in facts.items() if not readable(s, a[0]) and (relation, s) in known and s not in retained]
    if len(able) < wanted:
        raise UserError(
            f"forget asks for {wanted} {relation} facts, but the model knows {len(able)} whose answer cannot be read "
            f"off the subject; ask for {len(able)} at most, or add facts to the case."
        )
    return sorted(seeded(file, "forget", relation).sample(sorted(able), wanted))


def _named_retain(file: CaseFile, relation: str) -> set[str]:
    shares = file.retain.get(relation)
    sides = (shares.working, shares.sealed) if shares else ()
    return {s for side in sides if isinstance(side, list) for s in side}


def _subjects_to_retain(file: CaseFile, relation: str, forgotten: set[str], known: Known) -> Split[list[str]]:
    shares = file.retain[relation]
    named = _named_retain(file, relation)
    free = [
        s for s in file.relations[relation].facts if s not in forgotten and s not in named and (relation, s) in known
    ]
    order = seeded(file, "retain", relation).sample(sorted(free), len(free))
    out, start = [], 0
    for share in (shares.working, shares.sealed):
        if isinstance(share, list):
            out.append([s for s in share if (relation, s) in known])
        else:
            end = start + round(share * len(free))
            out.append(sorted(order[start:end]))
            start = end
    return Split(*out)


def _facts(file: CaseFile, subjects: Mapping[str, Split[list[str]]]) -> Facts:
    working, sealed = [], []
    for r, split in subjects.items():
        relation = file.relations[r]
        working += [make_fact(file, r, s, relation.working) for s in split.working]
        sealed += [make_fact(file, r, s, relation.sealed) for s in split.sealed]
    return Split(tuple(working), tuple(sealed))


def _foils(file: CaseFile, relation: str, subject: str, right: set[str]) -> tuple[str, ...]:
    pool = sorted({a[0] for a in file.relations[relation].facts.values()} - right)
    return tuple(seeded(file, "foils", relation, subject).sample(pool, min(FOILS, len(pool))))


def _twin_answers(file: CaseFile, relation: str) -> dict[str, str]:
    """Invented subjects with answers from the real pool, each answer used about equally often."""
    wanted, facts = file.twins[relation], file.relations[relation].facts
    rng = seeded(file, "twins", relation)
    names = wanted if isinstance(wanted, list) else invent(list(facts), wanted, rng)
    pool = sorted({a[0] for a in facts.values()})
    answers: list[str] = []
    while len(answers) < len(names):
        answers += rng.sample(pool, len(pool))
    return dict(zip(names, answers, strict=False))


def _twin(file: CaseFile, relation: str, subject: str, answer: str, part: str) -> Fact:
    prompt, *others = (t.replace("{}", subject) for t in getattr(file.relations[relation], part))
    return Fact(subject, relation, prompt, answer, (), _foils(file, relation, subject, {answer}), tuple(others))
