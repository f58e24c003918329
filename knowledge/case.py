"""A case: facts to forget, facts to retain, facts that were never taught, and unrelated text.

A `CaseSpec` is the content of a file; `spec.on(model)` gives the `Case`, the part of it that the model knows.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from .._util.errors import UserError
from .build import Facts, Known, Split, build, make_fact, seeded
from .fact import Fact
from .schema import CaseFile, Purpose, Relation, read
from .scoring import recalled

if TYPE_CHECKING:
    from ..model import Model

BUILT_IN = Path(__file__).parent / "cases"
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class CaseSpec:
    """The content of a case file, before any model is asked.

    `file`: the validated content; `path`: the location of the file and of the texts that it names; `digest`: SHA-256 of
    its text.
    """

    file: CaseFile = dataclasses.field(repr=False)
    path: Path | None = None
    digest: str = ""

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def purpose(self) -> Purpose:
        return self.file.purpose

    @property
    def seed(self) -> int:
        """The seed that draws subjects, shares, foils and twins, and orders everything that is shuffled later."""
        return self.file.seed

    @property
    def relations(self) -> dict[str, Relation]:
        """Templates and facts, by relation."""
        return self.file.relations

    @property
    def forgotten_relations(self) -> tuple[str, ...]:
        """The relations with facts to forget."""
        return tuple(self.file.forget)

    def pool(self, relation: str) -> tuple[str, ...]:
        """Every distinct answer of a relation, without aliases, in the file's order."""
        return tuple(dict.fromkeys(a[0] for a in self.relations[relation].facts.values()))

    def on(self, model: Model) -> Case:
        """The case with the facts that the model knows; the others are set aside.

        A fact is known if greedy decoding gives its whole answer after the first working template. A model is asked
        once for each content of a case, on its original weights.

        Raises:
            UserError: the model knows none of the facts to forget, or fewer than the case asks for, or an edit is in
                place on it.

        Cost: one forward pass over all facts.
        """
        return model.cache.get("case", (self._contents, self.path), lambda: self._known(model))

    def whole(self) -> Case:
        """The case as if the model knew every fact, for models that are yet to be taught."""
        return self._case([(r, s) for r, content in self.relations.items() for s in content.facts])

    def text(self, name: str) -> str:
        """The contents of a text file that the case names.

        Raises:
            UserError: there is no such file beside the case file.
        """
        found = self.find_text(name)
        if found is None:
            raise UserError(
                f"the case {self.name!r} names the text file {name!r}, which is not beside it; put it there."
            )
        return found

    def find_text(self, name: str) -> str | None:
        """The contents of a text file that the case names, or `None` if there is no such file."""
        folder = self.path.parent if self.path else BUILT_IN
        path = next((p for p in (folder / name, BUILT_IN / name) if p.is_file()), None)
        return None if path is None else path.read_text(encoding="utf-8")

    @cached_property
    def _contents(self) -> str:
        return self.file.model_dump_json()

    def _known(self, model: Model) -> Case:
        if model.edits:
            raise UserError(
                f"what {model.name} knew of the case {self.name!r} must be read before an edit is applied; "
                "call spec.on(model) on the original weights first."
            )
        facts = [
            make_fact(self.file, r, s, content.working) for r, content in self.relations.items() for s in content.facts
        ]
        right = recalled(model, facts)
        return self._case([(f.relation, f.subject) for f, ok in zip(facts, right, strict=True) if ok])

    def _case(self, known: Known) -> Case:
        file, known = self.file, set(known)
        parts, working = build(file, known), file.neutral.working
        every = [(r, s) for r in file.forget for s in file.relations[r].facts]
        return Case(
            name=self.name,
            forget=parts.forget,
            retain=parts.retain,
            twins=parts.twins,
            unknown=parts.unknown,
            neutral=Split(working if isinstance(working, str) else working.sampled, file.neutral.sealed),
            seed=self.seed,
            facts_known=sum(fact in known for fact in every),
            facts_total=len(every),
            spec=self,
        )


@dataclass(frozen=True)
class Case:
    """The part of a case that a model knows: facts to forget, facts to retain, never-taught twins, neutral text.

    Facts to forget and twins are the same in both parts, asked by other templates; retain facts are other facts in
    each part. `unknown` are the facts of the forgotten relations that the model does not know: an edit may rehearse
    them, no check asks about them. `facts_known` and `facts_total` count the facts of the forgotten relations.
    `passages`, if given, are the neutral working text.
    """

    name: str
    forget: Facts
    retain: Facts
    twins: Facts
    unknown: tuple[Fact, ...]
    neutral: Split[int | str]
    seed: int
    facts_known: int
    facts_total: int
    spec: CaseSpec = dataclasses.field(repr=False)
    passages: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)

    @property
    def forgotten_relations(self) -> tuple[str, ...]:
        """The relations with facts to forget."""
        return self.spec.forgotten_relations

    @property
    def other_relations(self) -> tuple[str, ...]:
        """Relations without facts to forget and with at least four working retain facts, sorted by name."""
        names = [f.relation for f in self.other_relation(self.retain.working)]
        return tuple(sorted(r for r in set(names) if names.count(r) >= 4))

    def pool(self, relation: str) -> tuple[str, ...]:
        """Every distinct answer of a relation, without aliases, in the file's order."""
        return self.spec.pool(relation)

    def same_relation(self, facts: Iterable[Fact]) -> list[Fact]:
        """The facts whose relation is one of the forgotten ones."""
        return [f for f in facts if f.relation in self.forgotten_relations]

    def other_relation(self, facts: Iterable[Fact]) -> list[Fact]:
        """The facts whose relation is none of the forgotten ones."""
        return [f for f in facts if f.relation not in self.forgotten_relations]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything in the case, texts included; any difference between two cases changes it."""
        texts = [
            self.spec.find_text(name) for name in (self.neutral.working, self.neutral.sealed) if isinstance(name, str)
        ]
        contents = (
            self.name, self.forget, self.retain, self.twins, self.unknown, self.neutral, self.seed, self.passages,
            texts,
        )  # fmt: skip
        return hashlib.sha256(f"{contents!r} {self.spec.file.model_dump_json()}".encode()).hexdigest()

    def subset(self, n: int) -> Case:
        """The same case with the first `n` working facts of each relation, for a quick look; sealed parts stay whole.

        Raises:
            UserError: `n` under 1.
        """
        if not isinstance(n, int) or n < 1:
            raise UserError(f"subset({n!r}) is not a number of facts; give 1 or more.")

        def first(facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
            by_relation = {
                r: [f for f in facts if f.relation == r][:n] for r in dict.fromkeys(f.relation for f in facts)
            }
            return tuple(f for group in by_relation.values() for f in group)

        return dataclasses.replace(
            self,
            forget=Split(first(self.forget.working), self.forget.sealed),
            retain=Split(first(self.retain.working), self.retain.sealed),
        )

    def targeting(self, relation: str) -> Case:
        """The same case about another relation: half of its working retain facts are forgotten, the rest retained.

        This is a control for anything that is done to the forget facts. Only working templates ask for these facts; the
        seed draws the halves.

        Raises:
            UserError: not one of `other_relations`.
        """
        if relation not in self.other_relations:
            raise UserError(
                f"{relation!r} is not another relation of {self.name!r} with four working facts to retain; "
                f"there are: {', '.join(self.other_relations) or 'none'}."
            )
        facts = [f for f in self.retain.working if f.relation == relation]
        facts = seeded(self.spec.file, "turned", relation).sample(facts, len(facts))
        forget, retain = tuple(facts[::2]), tuple(facts[1::2])
        file = self.spec.file.model_copy(update={"forget": {relation: [f.subject for f in forget]}})
        return dataclasses.replace(
            self,
            name=f"{self.name}, turned to {relation}",
            forget=Split(forget, forget),
            retain=Split(retain, retain),
            spec=dataclasses.replace(self.spec, file=file),
        )


def accepts_spec(
    verb: Callable[Concatenate[Model, Case, P], R],
) -> Callable[Concatenate[Model, Case | CaseSpec, P], R]:
    """Let a verb `(model, case, ...)` take a `CaseSpec` as well: it is resolved on the model before the verb runs.

    For a verb that compares a model with its `original`, it is resolved on the original.
    """

    @functools.wraps(verb)
    def call(model: Model, case: Case | CaseSpec, *args: P.args, **kwargs: P.kwargs) -> R:
        return verb(model, resolved(kwargs.get("original", model), case), *args, **kwargs)  # type: ignore[arg-type]

    return call


def resolved(model: Model, case: Case | CaseSpec) -> Case:
    """The case that the model knows of a spec; a `Case` is returned unchanged.

    Raises:
        UserError: neither of the two, such as a name.
    """
    check_case(case)
    return case.on(model) if isinstance(case, CaseSpec) else case


def check_case(case: object) -> None:
    """Raise `UserError` unless it is a case or the spec of one; a name, for example, is neither."""
    if not isinstance(case, Case | CaseSpec):
        raise UserError(f"{case!r} is not a case; read one with loka.case(...), by its name or its file's path.")


def case(name: str | Path) -> CaseSpec:
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
    file, digest = read(path)
    return CaseSpec(file, path, digest)


def cases() -> list[str]:
    """The names of the built-in cases."""
    return sorted(p.stem for p in BUILT_IN.glob("*.yaml"))
