"""What a case file may say, validated as a whole."""

from __future__ import annotations

import dataclasses
import reprlib
from collections import Counter
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from .._util.errors import UserError
from .._util.records import MOST, SEEDS
from .item import Kind
from .kinds import KINDS
from .rivals import Spellings
from .texts import fault_of, spelled_alike

Purpose = Literal["safety", "privacy", "copyright", "update"]
Unit = Literal["subject", "item"]
Problem = tuple[tuple[str, ...], str]
ALL = "all"
CHAT = "chat:"  # how the name of a prompt in a chat template starts (`verify.paraphrase`)
FIELDS = tuple(dict.fromkeys(f.name for row in KINDS.values() for f in dataclasses.fields(row.record)))
GENERIC = ("jsonl", "csv", "parquet")  # the formats of files that no benchmark has made


def _slot(template: str) -> str:
    if "{}" not in template:
        raise ValueError(f"the template {template!r} needs a slot {{}} for the subject")
    if template != template.rstrip():
        raise ValueError(f"the template {template!r} ends in white space; the answer comes with its own space")
    if template.startswith(CHAT):
        raise ValueError(f"the template {template!r} starts with {CHAT!r}, the name of another way to ask; rephrase it")
    return template


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _amount(value: object) -> object:
    """`all` as the share 1.0; a number with a point is a share, one without is a count; a list names subjects."""
    if isinstance(value, dict):
        return Shares.model_validate(value)
    if isinstance(value, list) and value and all(isinstance(v, str) and v for v in value):
        return value
    try:
        number = 1.0 if value == ALL else float(str(value)) if "." in str(value) else int(str(value))
    except ValueError:
        number = 0
    if not 0 < number <= (1 if isinstance(number, float) else MOST):
        raise ValueError(
            f"{reprlib.repr(value)} is not an amount; give all, a number up to {MOST:,}, a share such as 0.5, or a "
            "list of subjects"
        )
    return number


class Inconsistent(ValueError):
    """Parts of a file that do not fit together: the place of each, and what is wrong there."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(message for _, message in problems))
        self.problems = problems


def _plain(text: str, *, name: bool = False) -> str:
    if fault := fault_of(text, name=name):
        raise ValueError(fault)
    return text


def _one_slot(frame: str) -> str:
    if frame.count("{}") != 1:
        raise ValueError(f"the form {frame!r} needs one slot {{}} for the prompt")
    return frame


Name = Annotated[str, Field(min_length=1), AfterValidator(_plain)]
Relations = Annotated[str, Field(min_length=1), AfterValidator(partial(_plain, name=True))]  # and sets
Frame = Annotated[str, AfterValidator(_plain), AfterValidator(_one_slot)]
Template = Annotated[str, BeforeValidator(lambda v: _slot(v) if isinstance(v, str) else v)]
Templates = Annotated[list[Template], Field(min_length=1)]
Answers = Annotated[list[Name], BeforeValidator(_listed), Field(min_length=1)]
Subjects = Annotated[list[Name], Field(min_length=1)]
Count = Annotated[int, Field(gt=0, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[Share, BeforeValidator(lambda v: 1.0 if v == ALL else v)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Language(_Strict):
    """Templates of a relation in another language, and what subjects and answers are called there, where it differs."""

    templates: Templates
    subjects: dict[Name, Name] = {}
    answers: dict[Name, Name] = {}


class Relation(_Strict):
    """Templates, and answers by subject; aliases follow the answer in a list. `languages` are for verifying alone."""

    working: Templates
    sealed: Templates
    facts: Annotated[dict[Name, Answers], Field(min_length=1)]
    paraphrases: list[Template] = []
    languages: dict[Name, Language] = {}

    @cached_property
    def pool(self) -> tuple[str, ...]:
        """Every distinct answer without aliases, sorted."""
        return tuple(sorted({answer for answer, *_ in self.facts.values()}))

    @cached_property
    def spellings(self) -> Spellings:
        """Every answer and alias."""
        return Spellings(self.facts.values())


class Shares(_Strict):
    """The known subjects of each part: a share of those that are not forgotten, `all`, or named subjects."""

    working: Whole | Subjects = 0.0
    sealed: Whole | Subjects = 0.0


class ItemSet(_Strict):
    """Items of one kind: from a source (a file beside the case, or a hub id) in a format, or written out as `items`.

    `where` and `except` keep and drop rows by the values of their columns. `fields` gives the column of each of the
    kind's fields; they may also stand in the set itself. `frame` is the text around a question, with `{}` for it.
    `make` is the benchmark that the set is from, where the format does not say so.
    """

    kind: Kind
    format: Name = "jsonl"
    source: Name | None = None
    items: list[dict[str, Any]] = []
    config: Name | None = None
    split: Name | None = None
    frame: str = ""
    where: dict[Name, Answers] = {}
    except_: dict[Name, Answers] = Field({}, alias="except")
    fields: dict[Name, Name] = {}
    make: Name | None = None

    @property
    def benchmark(self) -> str | None:
        """The benchmark or data set that the items are from, by the name of its format; `None` for other files."""
        return self.make or (None if self.format in GENERIC else self.format)

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, data: Any) -> Any:
        """Fields that stand in the set itself, under `fields`."""
        if not isinstance(data, dict):
            return data
        own = {k: v for k, v in data.items() if k in FIELDS}
        rest = {k: v for k, v in data.items() if k not in FIELDS}
        return {**rest, "fields": {**rest.get("fields", {}), **own}} if own else rest

    @model_validator(mode="after")
    def _from_somewhere(self) -> ItemSet:
        if bool(self.items) == (self.source is not None):
            raise ValueError("a set needs either a source or items")
        if self.frame and self.frame.count("{}") != 1:
            raise ValueError(f"the frame {self.frame!r} needs one slot {{}} for the question")
        return self


class Sampled(_Strict):
    """This many passages are sampled from the model itself."""

    sampled: Count


class Neutral(_Strict):
    """Text that is unrelated to the target: sampled from the model, or a text file."""

    working: Sampled | Name
    sealed: Name


NEUTRAL = Neutral(working=Sampled(sampled=96), sealed="prose.txt")
Amount = Annotated[
    int | float | list[str] | Shares,
    PlainValidator(_amount),
    PlainSerializer(lambda v: v.model_dump() if isinstance(v, Shares) else v, return_type=Any),
]


class CaseFile(_Strict):
    """The content of a case file.

    `relations` and `sets` hold what is known; `forget`, `retain` and `twins` say what it is for, by their names.
    `near`: the retain sets that are nearest to the target; by default those of the forgotten relations, or else the
    first one. `updates`: the new answers, by relation and subject. `forms`: further texts around a prompt, by which
    verifying asks. `downstream`: sets whose questions need what is forgotten.
    """

    name: Name
    purpose: Purpose
    relations: dict[Relations, Relation] = {}
    sets: dict[Relations, ItemSet] = {}
    forget: Annotated[dict[Name, Amount], Field(min_length=1)]
    retain: dict[Name, Shares] = {}
    twins: dict[Name, Amount] = {}
    near: list[Name] = []
    updates: dict[Name, dict[Name, Name]] = {}
    forms: list[Frame] = []
    downstream: dict[Name, Amount] = {}
    neutral: Neutral = NEUTRAL
    unit: Unit | None = None
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] = 0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> CaseFile:
        """The content of a case that comes from no file.

        Raises:
            UserError: a value that a case file may not have.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "this content"
            said = first["msg"].removeprefix("Value error, ").lower()
            raise UserError(f"the case {values.get('name')!r} cannot have {where}: {said}; correct it.") from error

    @model_validator(mode="after")
    def _consistent(self) -> CaseFile:
        problems = [
            *self._unknown_names(), *self._amounts(), *self._unknown_subjects(), *self._updates(), *self._overlaps(),
            *self._repeats(), *self._spellings(), *self._templates(), *self._twins(), *self._shares(),
            *self._languages(),
        ]  # fmt: skip
        if problems:
            raise Inconsistent(problems)
        return self

    def _unknown_names(self) -> list[Problem]:
        known = ", ".join([*self.relations, *self.sets]) or "none"
        named = {
            "forget": self.forget, "retain": self.retain, "twins": self.twins, "near": self.near,
            "updates": self.updates, "downstream": self.downstream,
        }  # fmt: skip
        unknown = [
            ((where, r), f"{where} names {r!r}, which is not among the relations and sets ({known})")
            for where, parts in named.items()
            for r in parts
            if r not in self.relations and r not in self.sets
        ]
        both = [r for r in self.relations if r in self.sets]
        return [
            *unknown,
            *((("sets", r), f"{r!r} is the name of a relation too; rename one") for r in both),
            *self._downstream(),
        ]

    def _downstream(self) -> list[Problem]:
        """Downstream questions are a set of their own: neither facts of a relation nor items of another role."""
        others = {*self.forget, *self.retain, *self.twins}
        return [
            (("downstream", name), f"{name!r} must be a set that is named neither under forget, retain nor twins")
            for name in self.downstream
            if name in self.relations or name in others
        ]

    def _amounts(self) -> list[Problem]:
        """A relation is forgotten, and given twins, by a number or by names: it holds many more facts than that."""
        named = {"forget": self.forget, "twins": self.twins}
        return [
            ((where, r), f"a relation's {where} must be a number or a list of subjects")
            for where, parts in named.items()
            for r, amount in parts.items()
            if r in self.relations and not isinstance(amount, int | list)
        ] + [
            ((where, r), f"{where} has no parts; give all, a number, a share, or a list of subjects")
            for where, parts in {"twins": self.twins, "downstream": self.downstream}.items()
            for r, amount in parts.items()
            if r in self.sets and isinstance(amount, Shares)
        ]

    def _named(self) -> list[tuple[tuple[str, ...], list[str]]]:
        """Every list of subjects that the file names: its place, and the subjects."""
        lists = [(("forget", r), v) for r, v in self.forget.items() if isinstance(v, list)]
        shares = [("retain", r, v) for r, v in self.retain.items()]
        shares += [("forget", r, v) for r, v in self.forget.items() if isinstance(v, Shares)]
        for where, r, of in shares:
            sides = (("working", of.working), ("sealed", of.sealed))
            lists += [((where, r, side), v) for side, v in sides if isinstance(v, list)]
        return lists

    def _unknown_subjects(self) -> list[Problem]:
        return [
            (at, f"{_part(at)} names {subject!r}, which has no fact under relations.{at[1]}.facts")
            for at, subjects in self._named()
            if at[1] in self.relations
            for subject in subjects
            if subject not in self.relations[at[1]].facts
        ]

    def _updates(self) -> list[Problem]:
        problems: list[Problem] = []
        for r, answers in self.updates.items():
            facts = self.relations[r].facts if r in self.relations else None
            for subject, answer in answers.items():
                at = ("updates", r, subject)
                if facts is not None and subject not in facts:
                    problems.append((at, f"there is no fact about {subject!r} under relations.{r}.facts"))
                elif facts is not None and answer in facts[subject]:
                    problems.append((at, f"{answer!r} is already the answer about {subject!r}; give another one"))
        return problems

    def _overlaps(self) -> list[Problem]:
        seen: dict[tuple[str, str], str] = {}
        problems: list[Problem] = []
        for at, subjects in self._named():
            for subject in subjects:
                if (first := seen.setdefault((at[1], subject), _part(at))) != _part(at):
                    problems.append((at, f"{subject!r} of {at[1]} is in both {first} and {_part(at)}; keep it in one"))
        return problems

    def _repeats(self) -> list[Problem]:
        """What one list names twice: subjects, and templates."""
        lists = [*self._named(), *((("twins", r), v) for r, v in self.twins.items() if isinstance(v, list))]
        lists += [
            (("relations", r, part), getattr(content, part))
            for r, content in self.relations.items()
            for part in ("working", "sealed", "paraphrases")
        ]
        lists += [
            (("relations", r, "languages", code), language.templates)
            for r, content in self.relations.items()
            for code, language in content.languages.items()
        ]
        lists.append((("forms",), self.forms))
        return [
            (at, f"{text!r} is listed twice; keep it once")
            for at, texts in lists
            for text, n in Counter(texts).items()
            if n > 1
        ]

    def _spellings(self) -> list[Problem]:
        """Subjects of a relation, or its twins, that differ in spaces or Unicode form alone."""
        problems: list[Problem] = []
        for r, content in self.relations.items():
            twins = self.twins.get(r)
            first: dict[str, str] = {}
            for subject in [*content.facts, *(twins if isinstance(twins, list) else ())]:
                if (seen := first.setdefault(spelled_alike(subject), subject)) != subject:
                    what = f"{seen!a} and {subject!a} are two spellings of one subject; keep one"
                    problems.append((("relations", r, "facts"), what))
        return problems

    def _templates(self) -> list[Problem]:
        return [
            (("relations", r), f"the template {t!r} of {r} is in working and in sealed or paraphrases; keep it in one")
            for r, content in self.relations.items()
            for t in content.working
            if t in (*content.sealed, *content.paraphrases)
        ]

    def _languages(self) -> list[Problem]:
        """Names that a language translates and that the relation's facts do not have."""
        known = {r: (content.facts, set(content.pool)) for r, content in self.relations.items()}
        return [
            (("relations", r, "languages", code, part), f"{name!r} is none of the {part} of the facts of {r}")
            for r, content in self.relations.items()
            for code, language in content.languages.items()
            for part, of in zip(("subjects", "answers"), known[r], strict=True)
            for name in getattr(language, part)
            if name not in of
        ]

    def _twins(self) -> list[Problem]:
        return [
            (("twins", r), f"the twin {t!r} of {r} is a real subject")
            for r, twins in self.twins.items()
            if r in self.relations and isinstance(twins, list)
            for t in twins
            if t in self.relations[r].facts
        ]

    def _shares(self) -> list[Problem]:
        """Shares of one set may not add up to more than all of it; a set may be whole in both parts of `forget`."""
        parts = [("retain", r, v) for r, v in self.retain.items()]
        parts += [("forget", r, v) for r, v in self.forget.items() if isinstance(v, Shares)]
        problems: list[Problem] = []
        for where, r, of in parts:
            if isinstance(of.working, float) and isinstance(of.sealed, float):
                total, both = of.working + of.sealed, where == "forget" and of.working == of.sealed == 1.0
                if total > 1 + 1e-9 and not both:
                    problems.append(((where, r), f"the shares add up to {total:g}; they may be 1 at most"))
        return problems


def _part(at: tuple[str, ...]) -> str:
    """The place of a list without the relation: `retain.sealed`."""
    return ".".join((at[0], *at[2:]))
