"""A case: items to forget, items to retain, items that were never taught, and unrelated text.

A `CaseSpec` is the content of a file; `spec.on(model)` gives the `Case`, the part of it that the model knows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .._util.errors import NotFiniteError, UserError
from .build import NOTHING, Items, Known, Split, build, make_fact, seeded
from .inline import content_digest, inline, write_case
from .item import Item
from .kinds import Record
from .schema import CaseFile, Purpose, Relation, Unit
from .scoring import KNOWN, shown
from .sets import Entry, entries

if TYPE_CHECKING:
    from ..model import Model

BUILT_IN = Path(__file__).parent / "cases"


def built_in_text(name: str) -> str | None:
    """The prose that comes with the package, or `None` for another name."""
    names = [path.name for path in BUILT_IN.glob("*.txt")]
    return (BUILT_IN / name).read_text(encoding="utf-8") if name in names else None


@dataclass(frozen=True)
class CaseSpec:
    """The content of a case file, before any model is asked.

    `file`: the validated content; `records`: the records of its sets; `texts`: the texts of its own that it names;
    `path`: the location of the file; `digest`: SHA-256 of the content, records and texts included.
    """

    file: CaseFile = dataclasses.field(repr=False)
    path: Path | None = None
    digest: str = ""
    records: Mapping[str, tuple[Record, ...]] = dataclasses.field(default_factory=dict, repr=False)
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)

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
        return tuple(r for r in self.file.forget if r in self.file.relations)

    @cached_property
    def sets(self) -> dict[str, tuple[Entry, ...]]:
        """The sets' records as items."""
        return entries(self.file, self.records)

    def pool(self, relation: str) -> tuple[str, ...]:
        """Every distinct answer of a relation, without aliases, in the file's order."""
        if relation in self.relations:
            return tuple(dict.fromkeys(self.answers(relation).values()))
        return tuple(dict.fromkeys(i.answer for i in self._items(relation)))

    def answers(self, relation: str) -> dict[str, str]:
        """The answer about each subject of a relation, in the file's order; of a set, about those in its prompts."""
        if relation in self.relations:
            return {s: a[0] for s, a in self.relations[relation].facts.items()}
        return {i.subject: i.answer for i in self._items(relation)}

    def _items(self, relation: str) -> list[Item]:
        """The working items of the sets that are of a relation and name their subjects."""
        items = [i for of in self.sets.values() for entry in of for i in entry.working]
        return [i for i in items if i.relation == relation and i.prompt.slots]

    def on(self, model: Model) -> Case:
        """The case with the items that the model knows; the others are set aside.

        A fact is known if greedy decoding gives its whole answer after the first working prompt, any other item if the
        right answer holds more than half of its pool's probability. A model is asked once for each content of a case,
        on its original weights.

        Raises:
            UserError: the model knows none of the items to forget, or fewer than the case asks for, or an edit is in
                place on it.
            NotFiniteError: the model's numbers are not finite.

        Cost: one forward pass over all facts, and one over the pools of all other items.
        """
        return model.cache.get("case", (self._contents, self.path), lambda: self._known(model))

    def whole(self) -> Case:
        """The case as if the model knew every item, for models that are yet to be taught."""
        facts = [(r, s) for r, content in self.relations.items() for s in content.facts]
        return self._case([*facts, *((name, e.key) for name, of in self.sets.items() for e in of)])

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
        """The contents of a text file that the case names, its own or built in, or `None` if there is no such file."""
        return self.texts[name] if name in self.texts else built_in_text(name)

    def save(self, folder: Path) -> None:
        """Write `case.yaml` and everything that it names into a folder, so that the folder stands alone.

        Raises:
            UserError: the folder holds another file of one of these names.
        """
        write_case(folder, self.file, self.path, self.records, self.texts)

    @cached_property
    def _contents(self) -> str:
        return f"{self.file.model_dump_json()} {dict(self.records)!r}"

    def _known(self, model: Model) -> Case:
        if model.edits:
            raise UserError(
                f"what {model.name} knew of the case {self.name!r} must be read before an edit is applied; "
                "call spec.on(model) on the original weights first."
            )
        asked = self._asked()
        found = shown(model, [item for items in asked.values() for item in items])
        if any(map(math.isnan, found)):
            raise NotFiniteError(
                f"{model.name} gives numbers that are not finite for {sum(map(math.isnan, found))} of {len(found)} "
                f"prompts of the case {self.name!r}, so what it knows cannot be told; check its weights, or load it "
                "with --dtype float32."
            )
        right = iter(value > KNOWN for value in found)
        share = {key: [next(right) for _ in items] for key, items in asked.items()}
        return self._case([key for key, values in share.items() if 2 * sum(values) > len(values)])

    def _asked(self) -> dict[tuple[str, str], Sequence[Item]]:
        """The items that decide what a model knows, by relation and subject of a fact, or by set and key of an entry.

        A set that nobody forgets, retains or asks downstream is not asked.
        """
        facts: dict[tuple[str, str], Sequence[Item]] = {
            (r, s): [make_fact(self.file, r, s, content.working)]
            for r, content in self.relations.items()
            for s in content.facts
        }
        used = [n for n in self.sets if n in self.file.forget or n in self.file.retain or n in self.file.downstream]
        return facts | {(name, e.key): e.working for name in used for e in self.sets[name]}

    def _case(self, known: Known) -> Case:
        file, known = self.file, set(known)
        parts, working = build(file, self.sets, known), file.neutral.working
        every = [(r, s) for r in self.forgotten_relations for s in file.relations[r].facts]
        every += [(name, e.key) for name in file.forget if name in self.sets for e in self.sets[name]]
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
            holdout=parts.holdout,
            near=parts.near,
            downstream=parts.downstream,
            downstream_twins=parts.downstream_twins,
        )


@dataclass(frozen=True)
class Case:
    """The part of a case that a model knows: items to forget, items to retain, never-taught twins, neutral text.

    Items to forget and twins are the same in both parts, asked by other prompts, unless the file divides them; retain
    items are other items in each part. `unknown` are the facts of the forgotten relations that the model does not know:
    an edit may rehearse them, no check asks about them. `facts_known` and `facts_total` count the items of the
    forgotten relations and sets. `passages`, if given, are the neutral working text. `holdout` are the never-taught
    items that the case names, for membership inference. `near` are the relations nearest to the target. `downstream`
    are questions that need what is forgotten, `downstream_twins` the same about invented names.
    """

    name: str
    forget: Items
    retain: Items
    twins: Items
    unknown: tuple[Item, ...]
    neutral: Split[int | str]
    seed: int
    facts_known: int
    facts_total: int
    spec: CaseSpec = dataclasses.field(repr=False)
    passages: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)
    holdout: Items = NOTHING
    near: tuple[str, ...] = ()
    downstream: tuple[Item, ...] = ()
    downstream_twins: tuple[Item, ...] = ()

    @classmethod
    def of(
        cls,
        items: Sequence[Record],
        *,
        retain: Sequence[Record] = (),
        twins: Sequence[Record] = (),
        name: str = "unnamed",
        purpose: Purpose = "safety",
        unit: Unit | None = None,
        seed: int = 0,
    ) -> Case:
        """A case from lists of `Fact`, `Question`, `Passage`, `Choice` and `Pair`, as if a model knew all of them.

        `spec.on(model)` of the result gives what a model does know.

        Args:
            items: what is to be forgotten, or looked for.
            retain: what is to be kept; half of it is sealed.
            twins: items of the same kinds that the model was never taught.

        Raises:
            UserError: no items, or something else than these records.

        Example:
            pair = loka.Pair("When Mary and John went out, John thanked", "When Mary and John went out, Mary thanked",
                             answer="Mary", foil="John")
            found = loka.locate.attribution(model, loka.Case.of([pair]))
        """
        file, records = inline({"forget": items, "retain": retain, "twins": twins}, name, purpose, unit, seed)
        return CaseSpec(file, None, content_digest(file, records, {}), records).whole()

    @cached_property
    def forgotten_relations(self) -> tuple[str, ...]:
        """The relations and sets with items to forget."""
        return tuple(dict.fromkeys(i.relation for i in (*self.forget.working, *self.forget.sealed)))

    @property
    def other_relations(self) -> tuple[str, ...]:
        """Relations far from the target and with at least four working retain items, sorted by name."""
        names = [f.relation for f in self.other_relation(self.retain.working)]
        return tuple(sorted(r for r in set(names) if names.count(r) >= 4))

    @property
    def updates(self) -> dict[str, str]:
        """The new answers of an update, by subject."""
        subjects = {i.subject for i in self.forget.working}
        return {s: a for answers in self.spec.file.updates.values() for s, a in answers.items() if s in subjects}

    def new_answer(self, item: Item) -> str | None:
        """The new answer that an update gives to an item's question, `None` if it gives none."""
        updates = self.spec.file.updates
        named = [item.relation, *(name for name in updates if name in self.spec.sets)]
        return next((updates[r][item.subject] for r in named if item.subject in updates.get(r, {})), None)

    def pool(self, relation: str) -> tuple[str, ...]:
        """Every distinct answer of a relation, without aliases, in the file's order."""
        return self.spec.pool(relation)

    def same_relation(self, items: Iterable[Item]) -> list[Item]:
        """The items of the relations nearest to the target, the forgotten ones among them."""
        return [f for f in items if f.relation in self.near]

    def other_relation(self, items: Iterable[Item]) -> list[Item]:
        """The items of all other relations."""
        return [f for f in items if f.relation not in self.near]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything in the case, texts included; any difference between two cases changes it."""
        texts = [
            self.spec.find_text(name) for name in (self.neutral.working, self.neutral.sealed) if isinstance(name, str)
        ]
        contents = (
            self.name, self.forget, self.retain, self.twins, self.unknown, self.neutral, self.seed, self.passages,
            self.holdout, self.near, texts, self.downstream, self.downstream_twins,
        )  # fmt: skip
        return hashlib.sha256(f"{contents!r} {self.spec._contents}".encode()).hexdigest()

    def subset(self, n: int) -> Case:
        """The same case with the first `n` working items of each relation, for a quick look; sealed parts stay whole.

        Raises:
            UserError: `n` under 1.
        """
        if not isinstance(n, int) or n < 1:
            raise UserError(f"subset({n!r}) is not a number of facts; give 1 or more.")

        def first(items: tuple[Item, ...]) -> tuple[Item, ...]:
            by_relation = {
                r: [f for f in items if f.relation == r][:n] for r in dict.fromkeys(f.relation for f in items)
            }
            return tuple(f for group in by_relation.values() for f in group)

        return dataclasses.replace(
            self,
            forget=Split(first(self.forget.working), self.forget.sealed),
            retain=Split(first(self.retain.working), self.retain.sealed),
        )

    def targeting(self, relation: str) -> Case:
        """The same case about another relation: half of its working retain items are forgotten, the rest retained.

        This is a control for anything that is done to the forget items. Only working prompts ask for these items; the
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
        return dataclasses.replace(
            self,
            name=f"{self.name}, turned to {relation}",
            forget=Split(forget, forget),
            retain=Split(retain, retain),
            near=(relation,),
        )
