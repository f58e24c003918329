"""Build the items of a case from its relations and sets, as far as a model knows them."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from .._util.errors import UserError
from ..model import Prompt
from .draw import draw
from .invent import invent
from .item import Item
from .kinds import KINDS, readable
from .never_taught import about_nobody, invented_names
from .schema import CaseFile, Shares
from .sets import Entry, Sets

FOILS = 9
T = TypeVar("T")
Known = Collection[tuple[str, str]]  # relation and subject of a fact, or set and key of an entry


@dataclass(frozen=True)
class Split(Generic[T]):
    """`working` is the part that locating and editing may see, `sealed` the part that verifying reports on."""

    working: T
    sealed: T


Items = Split[tuple[Item, ...]]
NOTHING: Items = Split((), ())


@dataclass(frozen=True)
class Parts:
    """The items of a case: to forget, to retain, twins, and those of the forgotten relations that are not known.

    `holdout`: the never-taught items that the case names, which are the twins unless these had to be made from the
    items to forget. `near`: the relations nearest to the target. `downstream`: questions that need what is forgotten,
    and the same ones about invented names, where a subject stands in them.
    """

    forget: Items
    retain: Items
    twins: Items
    holdout: Items
    unknown: tuple[Item, ...]
    near: tuple[str, ...]
    downstream: tuple[Item, ...]
    downstream_twins: tuple[Item, ...]


def build(file: CaseFile, sets: Sets, known: Known) -> Parts:
    """Divide a file's items into parts; items to forget and to retain are among the `known`.

    Raises:
        UserError: none of the items to forget is known, or fewer than the file asks for.
    """
    subjects = {r: _subjects_to_forget(file, r, known) for r in file.forget if r in file.relations}
    retained = {
        r: _subjects_to_retain(file, r, set(subjects.get(r, ())), known) for r in file.retain if r in file.relations
    }
    twins = {r: _twin_answers(file, r) for r in file.twins if r in file.relations}
    unknown = [(r, s) for r in subjects for s in file.relations[r].facts if (r, s) not in known]
    chosen = {s: _entries_to_forget(file, s, sets[s], known) for s in file.forget if s in sets}
    rest = {s: _entries_to_retain(file, s, sets[s], chosen.get(s), known) for s in file.retain if s in sets}
    forget = _joined(_facts(file, {r: Split(names, names) for r, names in subjects.items()}), _items(chosen))
    if not (forget.working and forget.sealed):
        raise UserError(
            f"the {'sealed' if forget.working else 'working'} part of the case {file.name!r} forgets nothing that the "
            "model knows; give both parts something under forget."
        )
    retain = _joined(_facts(file, retained), _items(rest))
    holdout = _items({s: _both(_taken(file, s, sets[s], file.twins[s], "twins")) for s in file.twins if s in sets})
    downstream = _downstream(file, sets, known)
    never = _joined(
        Split(*(tuple(_twin(file, r, s, a, part) for r, answers in twins.items() for s, a in answers.items())
                for part in ("working", "sealed"))),
        _twins_of(file, forget, holdout, sets),
    )  # fmt: skip
    return Parts(
        forget, retain,
        Split(_of_kinds(never.working, forget.working), _of_kinds(never.sealed, forget.sealed)),
        holdout,
        tuple(make_fact(file, r, s, file.relations[r].working) for r, s in unknown),
        _near(file, forget, sets),
        downstream,
        tuple(about_nobody(downstream, _invented(file, downstream, sets, "downstream"))),
    )  # fmt: skip


def make_fact(file: CaseFile, relation: str, subject: str, templates: list[str]) -> Item:
    """The fact about a subject, with prompts from these templates."""
    answer, *aliases = file.relations[relation].facts[subject]
    prompt, *others = (Prompt.fill(t, subject) for t in templates)
    foils = _foils(file, relation, subject, {answer, *aliases})
    longer = file.relations[relation].spellings.rivals((answer, *aliases))
    return Item(subject, relation, prompt, answer, tuple(aliases), foils, tuple(others), rivals=longer)


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
    assert isinstance(wanted, int), "the file was validated"
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


def _facts(file: CaseFile, subjects: Mapping[str, Split[list[str]]]) -> Items:
    working, sealed = [], []
    for r, split in subjects.items():
        relation = file.relations[r]
        working += [make_fact(file, r, s, relation.working) for s in split.working]
        sealed += [make_fact(file, r, s, relation.sealed) for s in split.sealed]
    return Split(tuple(working), tuple(sealed))


def _foils(file: CaseFile, relation: str, subject: str, right: set[str]) -> tuple[str, ...]:
    return draw(file.relations[relation].pool, FOILS, seeded(file, "foils", relation, subject), without=right)


def _twin_answers(file: CaseFile, relation: str) -> dict[str, str]:
    """Invented subjects with answers from the real pool, each answer used about equally often."""
    wanted, facts = file.twins[relation], file.relations[relation].facts
    rng = seeded(file, "twins", relation)
    assert isinstance(wanted, list | int), "the file was validated"
    names = wanted if isinstance(wanted, list) else invent(list(facts), wanted, rng)
    pool = file.relations[relation].pool
    answers: list[str] = []
    while len(answers) < len(names):
        answers += rng.sample(pool, len(pool))
    return dict(zip(names, answers, strict=False))


def _twin(file: CaseFile, relation: str, subject: str, answer: str, part: str) -> Item:
    prompt, *others = (Prompt.fill(t, subject) for t in getattr(file.relations[relation], part))
    foils, longer = _foils(file, relation, subject, {answer}), file.relations[relation].spellings.rivals((answer,))
    return Item(subject, relation, prompt, answer, (), foils, tuple(others), rivals=longer)


def _entries_to_forget(file: CaseFile, name: str, entries: tuple[Entry, ...], known: Known) -> Split[list[Entry]]:
    """The known entries to forget. Both parts ask the same ones, unless the file divides them."""
    wanted = file.forget[name]
    able = [e for e in entries if (name, e.key) in known]
    if isinstance(wanted, Shares):
        sides = [_taken(file, name, able, side, "forget") for side in (wanted.working, wanted.sealed)]
        if set(sides[0]).isdisjoint(sides[1]) or wanted.working == wanted.sealed == 1.0:
            found = Split(*sides)
        else:
            found = _divided(file, name, able, wanted)
    else:
        found = _both(_taken(file, name, able, wanted, "forget"))
    if not (found.working or found.sealed):
        raise UserError(
            f"the model knows none of the {len(entries)} items of {name!r} to forget; name items that it knows."
        )
    return found


def _entries_to_retain(
    file: CaseFile, name: str, entries: tuple[Entry, ...], forgotten: Split[list[Entry]] | None, known: Known
) -> Split[list[Entry]]:
    gone = {e.unit for side in (forgotten.working, forgotten.sealed) for e in side} if forgotten else set()
    able = [e for e in entries if (name, e.key) in known and e.unit not in gone]
    return _divided(file, name, able, file.retain[name])


def _divided(file: CaseFile, name: str, able: list[Entry], shares: Shares) -> Split[list[Entry]]:
    """Entries for both parts: named ones, or shares of the other units, drawn by the seed; no unit is in both."""
    listed = [n for side in (shares.working, shares.sealed) if isinstance(side, list) for n in side]
    units = sorted({e.unit for e in able if not e.named(listed)})
    order = seeded(file, "sets", name).sample(units, len(units))
    out, start = [], 0
    for share in (shares.working, shares.sealed):
        if isinstance(share, list):
            out.append([e for e in able if e.named(share)])
            continue
        end = start + round(share * len(units))
        chosen = set(order[start:end])
        out.append([e for e in able if e.unit in chosen])
        start = end
    return Split(*out)


def _taken(file: CaseFile, name: str, able: Iterable[Entry], wanted: object, role: str) -> list[Entry]:
    """As many entries as an amount says: all, a share, a number, or those that a list names."""
    able = list(able)
    if isinstance(wanted, list):
        return [e for e in able if e.named(wanted)]
    n = wanted if isinstance(wanted, int) else round(float(wanted) * len(able)) if isinstance(wanted, float) else None
    assert n is not None, "the file was validated"
    if n > len(able):
        raise UserError(
            f"{role} asks for {n} items of {name!r}, but there are {len(able)}"
            f"{'' if role == 'twins' else ' that the model knows'}; ask for {len(able)} at most."
        )
    order = seeded(file, role, name).sample(range(len(able)), n)
    return [able[i] for i in sorted(order)]


def _both(found: list[Entry]) -> Split[list[Entry]]:
    return Split(found, found)


def _items(entries: Mapping[str, Split[list[Entry]]]) -> Items:
    return Split(
        tuple(i for split in entries.values() for e in split.working for i in e.working),
        tuple(i for split in entries.values() for e in split.sealed for i in e.sealed),
    )


def _joined(*parts: Items) -> Items:
    return Split(tuple(i for p in parts for i in p.working), tuple(i for p in parts for i in p.sealed))


def _twins_of(file: CaseFile, forget: Items, holdout: Items, sets: Sets) -> Items:
    """The never-taught control of the sets: the held-out items, or the items to forget about invented names.

    The control of a pair is its counterfactual, which lacks what the answer depends on. Held-out items serve if they
    come with wrong answers as the items to forget do; otherwise the two pools could not be compared, and invented names
    take the subjects' places.
    """
    pairs = Split(*(tuple(_lacking(i) for i in side if i.counterfactual) for side in (forget.working, forget.sealed)))
    every = [i for i in (*forget.working, *forget.sealed) if not i.counterfactual]
    own = [i for i in every if i.relation not in file.relations]
    if not own:
        return pairs
    subjects = list(dict.fromkeys(i.subject for i in own if i.subject and i.prompt.slots))
    if not subjects or (holdout.sealed and _alike(own, holdout)):
        return _joined(holdout, pairs)
    about = _invented(file, own, sets, "names")
    made = Split(*(tuple(about_nobody([i for i in side if not i.counterfactual], about))
                   for side in (forget.working, forget.sealed)))  # fmt: skip
    return _joined(made, pairs)


def _invented(file: CaseFile, items: Iterable[Item], sets: Sets, label: str) -> dict[str, str]:
    """An invented name for every subject that stands in the items' prompts."""
    subjects = list(dict.fromkeys(i.subject for i in items if i.subject and i.prompt.slots))
    everyone = [e.record.subject for entries in sets.values() for e in entries if e.record.subject]
    names = invented_names([*subjects, *everyone], len(subjects), seeded(file, label)) if subjects else []
    return dict(zip(subjects, names, strict=True))


def _downstream(file: CaseFile, sets: Sets, known: Known) -> tuple[Item, ...]:
    """The sealed items of the downstream sets that the model knows."""
    taken = {
        s: _taken(file, s, [e for e in sets[s] if (s, e.key) in known], amount, "downstream")
        for s, amount in file.downstream.items()
    }
    return tuple(item for entries in taken.values() for e in entries for item in e.sealed)


def _lacking(item: Item) -> Item:
    """A pair's counterfactual prompt with the same answer and foil."""
    return replace(item, prompt=Prompt(item.counterfactual), counterfactual="", paraphrases=())


def _of_kinds(twins: tuple[Item, ...], items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The twins of the kinds of these items: a passage is not a control of a choice."""
    kinds = {i.kind for i in items}
    return tuple(t for t in twins if t.kind in kinds)


def _alike(own: Iterable[Item], holdout: Items) -> bool:
    """Whether the held-out items have pools of the same make and size as the items to forget, or share a relation's."""

    def sizes(items: Iterable[Item]) -> dict[str, int]:
        """By kind, the most foils of an item; where answers share a pool, foils do not matter."""
        found: dict[str, int] = {}
        for i in items:
            found[i.kind] = 0 if KINDS[i.kind].shared else max(found.get(i.kind, 0), len(i.foils))
        return found

    held = sizes((*holdout.working, *holdout.sealed))
    return sizes(i for i in own if i.kind in held) == held


def _near(file: CaseFile, forget: Items, sets: Sets) -> tuple[str, ...]:
    """The relations nearest to the target: those forgotten, and the retain sets that the file says are near."""
    own = dict.fromkeys(i.relation for i in (*forget.working, *forget.sealed))
    near = list(file.near)
    kept = (i.relation for name in file.retain for e in sets.get(name, ()) for i in e.items)
    if not near and not any(name in file.retain for name in file.forget) and own.keys().isdisjoint(kept):
        near = list(file.retain)[:1]
    found = [i.relation for name in near for e in sets.get(name, ()) for i in e.items]
    return tuple(dict.fromkeys([*own, *found, *(name for name in near if name in file.relations)]))
