"""A case: what to forget, what to keep, what was never known, and text that has nothing to do with it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from .._util.errors import UserError
from .fact import Fact, readable
from .invent import invent
from .schema import CaseFile, Relation, read

if TYPE_CHECKING:
    from ..model import Model

BUILT_IN = Path(__file__).parent / "cases"
FOILS = 9
T = TypeVar("T")


@dataclass(frozen=True)
class Split(Generic[T]):
    """`working` is what locating and editing may see, `sealed` what verifying reports on."""

    working: T
    sealed: T


@dataclass(frozen=True)
class Case:
    """Facts to forget, facts to retain, twins that were never taught, and neutral text.

    Forget facts and twins are the same in both parts, behind other templates; retain facts are other
    facts in each. `facts_known` and `facts_total` count the facts of the forgotten relations; they are
    `None` until `on(model)` has set aside what the model does not know: `unknown` are those of the forgotten
    relations, which an edit may rehearse and no check asks about. `passages`, where given, are the neutral
    working text.
    """

    name: str
    purpose: str
    forget: Split[tuple[Fact, ...]]
    retain: Split[tuple[Fact, ...]]
    twins: Split[tuple[Fact, ...]]
    neutral: Split[int | str]
    seed: int
    spec: CaseFile = dataclasses.field(repr=False)
    digest: str = ""
    path: Path | None = None
    facts_known: int | None = None
    facts_total: int | None = None
    unknown: tuple[Fact, ...] = ()
    passages: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)

    def pool(self, relation: str) -> tuple[str, ...]:
        """Every distinct answer of a relation, without aliases, in the file's order."""
        return tuple(dict.fromkeys(a[0] for a in self.spec.relations[relation].facts.values()))

    @property
    def forgotten_relations(self) -> tuple[str, ...]:
        return tuple(self.spec.forget)

    def subset(self, n: int) -> Case:
        """The same case with the first `n` working facts of each relation alone, for a quick look; seals stay whole.

        Raises:
            UserError: `n` under 1, or a case of which it is not yet known what the model knows.
        """
        self._check_known()
        if n < 1:
            raise UserError(f"subset({n}) leaves no fact; give 1 or more.")

        def first(facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
            of = {r: [f for f in facts if f.relation == r][:n] for r in dict.fromkeys(f.relation for f in facts)}
            return tuple(f for some in of.values() for f in some)

        return dataclasses.replace(
            self,
            forget=Split(first(self.forget.working), self.forget.sealed),
            retain=Split(first(self.retain.working), self.retain.sealed),
            digest=f"{self.digest}/{n}",
        )

    @property
    def other_relations(self) -> tuple[str, ...]:
        """Relations that are kept and not forgotten, with at least four working facts, by name."""
        kept = [f.relation for f in self.retain.working]
        return tuple(sorted(r for r in set(kept) if r not in self.spec.forget and kept.count(r) >= 4))

    def targeting(self, relation: str) -> Case:
        """The same case about another relation: half of its working retain facts are forgotten, the rest kept.

        A control for whatever is done for the forget facts. The facts are asked about behind working templates
        alone; the halves are drawn by the seed.

        Raises:
            UserError: not one of `other_relations`, or a case of which it is not yet known what the model knows.
        """
        self._check_known()
        if relation not in self.other_relations:
            raise UserError(
                f"{relation!r} is no other relation of {self.name!r} with four working facts to keep; "
                f"there are: {', '.join(self.other_relations) or 'none'}."
            )
        facts = [f for f in self.retain.working if f.relation == relation]
        facts = _rng(self.spec, "turned", relation).sample(facts, len(facts))
        forget, retain = tuple(facts[::2]), tuple(facts[1::2])
        return dataclasses.replace(
            self,
            name=f"{self.name}, turned to {relation}",
            forget=Split(forget, forget),
            retain=Split(retain, retain),
            spec=self.spec.model_copy(update={"forget": {relation: [f.subject for f in forget]}}),
            digest=f"{self.digest}/{relation}",
        )

    def _check_known(self) -> None:
        if self.facts_known is None:
            raise UserError(f"what the model knows of {self.name!r} is not set apart yet; call case.on(model) first.")

    def on(self, model: Model) -> Case:
        """This case with the facts that the model knows; the rest is set aside.

        A fact is known if greedy decoding gives its whole answer behind the first working template.
        Worked out once for a model, on its original weights: one forward pass over all facts.

        Raises:
            UserError: the model knows none of the facts to forget, or too few to draw the number from,
                or carries an edit already.
        """
        if self.facts_known is not None:
            return self
        key = "case", self.digest, self.seed
        if key not in model.memo:
            if model.edits:
                raise UserError(
                    f"what {model.name} knew of the case {self.name!r} must be read before an edit is applied; "
                    "call case.on(model) on the original weights first."
                )
            model.memo[key] = _known(self, model)
        return model.memo[key]


def case(name: str | Path) -> Case:
    """A built-in case by name, or the case in a YAML file.

    Raises:
        UserError: no such case, or a file with errors (all of them named, with line and field).

    >>> case("capitals").purpose
    'safety'
    """
    path = Path(name)
    if not path.suffix and not path.exists():
        path = BUILT_IN / f"{name}.yaml"
    if not path.is_file():
        raise UserError(
            f"there is no case {str(name)!r}; built in are {', '.join(cases())}, or give a YAML file's path."
        )
    spec, digest = read(path)
    return _build(spec, digest, path, None)


def cases() -> list[str]:
    """The names of the built-in cases."""
    return sorted(p.stem for p in BUILT_IN.glob("*.yaml"))


def _known(unread: Case, model: Model) -> Case:
    from .scoring import recalled

    spec = unread.spec
    facts = [
        _fact(spec, r, subject, relation.working)
        for r, relation in spec.relations.items()
        for subject in relation.facts
    ]
    right = recalled(model, facts)
    known = {(f.relation, f.subject) for f, ok in zip(facts, right, strict=True) if ok}
    return _build(spec, unread.digest, unread.path, known)


def _build(spec: CaseFile, digest: str, path: Path | None, known: set[tuple[str, str]] | None) -> Case:
    forget = {r: _forgotten(spec, r, known) for r in spec.forget}
    retain = {r: _retained(spec, r, set(forget.get(r, ())), known) for r in spec.retain}
    twins = {r: _twin_facts(spec, r) for r in spec.twins}
    both = {r: Split(subjects, subjects) for r, subjects in forget.items()}
    counts, unknown = (None, None), ()
    if known is not None:
        unknown = tuple(
            _fact(spec, r, s, spec.relations[r].working)
            for r in spec.forget
            for s in spec.relations[r].facts
            if (r, s) not in known
        )
        counts = (
            sum((r, s) in known for r in spec.forget for s in spec.relations[r].facts),
            sum(len(spec.relations[r].facts) for r in spec.forget),
        )
    return Case(
        name=spec.name,
        purpose=spec.purpose,
        forget=_facts(spec, both),
        retain=_facts(spec, retain),
        twins=Split(
            tuple(_twin(spec, r, s, a, "working") for r, t in twins.items() for s, a in t.items()),
            tuple(_twin(spec, r, s, a, "sealed") for r, t in twins.items() for s, a in t.items()),
        ),
        neutral=Split(
            spec.neutral.working if isinstance(spec.neutral.working, str) else spec.neutral.working.sampled,
            spec.neutral.sealed,
        ),
        seed=spec.seed,
        spec=spec,
        digest=digest,
        path=path,
        facts_known=counts[0],
        facts_total=counts[1],
        unknown=unknown,
    )


def _forgotten(spec: CaseFile, relation: str, known: set[tuple[str, str]] | None) -> list[str]:
    wanted = spec.forget[relation]
    facts = spec.relations[relation].facts
    if isinstance(wanted, list):
        kept = [s for s in wanted if known is None or (relation, s) in known]
        if not kept:
            raise UserError(
                f"the model knows none of the {len(wanted)} {relation} facts to forget; name facts it knows."
            )
        return kept
    able = [s for s, a in facts.items() if not readable(s, a[0]) and (known is None or (relation, s) in known)]
    kept_out = _named_retain(spec, relation)
    able = [s for s in able if s not in kept_out]
    if known is not None and len(able) < wanted:
        raise UserError(
            f"forget asks for {wanted} {relation} facts, but the model knows {len(able)} whose answer cannot be read "
            f"off the subject; ask for {len(able)} at most, or add facts to the case."
        )
    return sorted(_rng(spec, "forget", relation).sample(sorted(able), min(wanted, len(able))))


def _named_retain(spec: CaseFile, relation: str) -> set[str]:
    shares = spec.retain.get(relation)
    sides = (shares.working, shares.sealed) if shares else ()
    return {s for side in sides if isinstance(side, list) for s in side}


def _retained(
    spec: CaseFile, relation: str, forgotten: set[str], known: set[tuple[str, str]] | None
) -> Split[list[str]]:
    shares = spec.retain[relation]
    named = _named_retain(spec, relation)
    free = [
        s
        for s in spec.relations[relation].facts
        if s not in forgotten and s not in named and (known is None or (relation, s) in known)
    ]
    order = _rng(spec, "retain", relation).sample(sorted(free), len(free))
    out, start = [], 0
    for share in (shares.working, shares.sealed):
        if isinstance(share, list):
            out.append([s for s in share if known is None or (relation, s) in known])
        else:
            end = start + round(share * len(free))
            out.append(sorted(order[start:end]))
            start = end
    return Split(*out)


def _facts(spec: CaseFile, subjects: Mapping[str, Split[list[str]]]) -> Split[tuple[Fact, ...]]:
    working, sealed = [], []
    for r, split in subjects.items():
        relation = spec.relations[r]
        working += [_fact(spec, r, s, relation.working) for s in split.working]
        sealed += [_fact(spec, r, s, relation.sealed) for s in split.sealed]
    return Split(tuple(working), tuple(sealed))


def _fact(spec: CaseFile, relation: str, subject: str, templates: list[str]) -> Fact:
    answer, *aliases = spec.relations[relation].facts[subject]
    prompt, *others = (t.replace("{}", subject) for t in templates)
    foils = _foils(spec, relation, subject, {answer, *aliases})
    return Fact(subject, relation, prompt, answer, tuple(aliases), foils, tuple(others))


def _foils(spec: CaseFile, relation: str, subject: str, right: set[str]) -> tuple[str, ...]:
    pool = sorted({a[0] for a in spec.relations[relation].facts.values()} - right)
    return tuple(_rng(spec, "foils", relation, subject).sample(pool, min(FOILS, len(pool))))


def _twin_facts(spec: CaseFile, relation: str) -> dict[str, str]:
    """Invented subjects with answers from the real pool, each answer used about equally often."""
    wanted, facts = spec.twins[relation], spec.relations[relation].facts
    rng = _rng(spec, "twins", relation)
    names = wanted if isinstance(wanted, list) else invent(list(facts), wanted, rng)
    pool = sorted({a[0] for a in facts.values()})
    answers: list[str] = []
    while len(answers) < len(names):
        answers += rng.sample(pool, len(pool))
    return dict(zip(names, answers, strict=False))


def _twin(spec: CaseFile, relation: str, subject: str, answer: str, part: str) -> Fact:
    templates: Relation = spec.relations[relation]
    prompt, *others = (t.replace("{}", subject) for t in getattr(templates, part))
    return Fact(subject, relation, prompt, answer, (), _foils(spec, relation, subject, {answer}), tuple(others))


def _rng(spec: CaseFile, *what: str) -> random.Random:
    return random.Random("/".join((str(spec.seed), spec.name, *what)))
