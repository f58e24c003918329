"""The case file: read from YAML and validated as a whole; every error names its line and field."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .._util.errors import UserError

Purpose = Literal["safety", "privacy", "copyright", "update"]


def _slot(template: str) -> str:
    if "{}" not in template:
        raise ValueError(f"the template {template!r} needs a slot {{}} for the subject")
    if template != template.rstrip():
        raise ValueError(f"the template {template!r} ends in white space; the answer comes with its own space")
    return template


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Name = Annotated[str, Field(min_length=1)]
Template = Annotated[str, BeforeValidator(lambda v: _slot(v) if isinstance(v, str) else v)]
Templates = Annotated[list[Template], Field(min_length=1)]
Answers = Annotated[list[Name], BeforeValidator(_listed), Field(min_length=1)]
Subjects = Annotated[list[Name], Field(min_length=1)]
Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Relation(_Strict):
    """Templates, and answers by subject; aliases follow the answer in a list."""

    working: Templates
    sealed: Templates
    facts: Annotated[dict[Name, Answers], Field(min_length=1)]
    paraphrases: list[Template] = []


class Shares(_Strict):
    """The known subjects to retain: a share of those that are not forgotten, or named subjects."""

    working: Share | Subjects
    sealed: Share | Subjects


class Sampled(_Strict):
    """This many passages are sampled from the model itself."""

    sampled: Count


class Neutral(_Strict):
    """Text that is unrelated to the target: sampled from the model, or a text file."""

    working: Sampled | Name
    sealed: Name


class CaseFile(_Strict):
    """The content of a case file."""

    name: Name
    purpose: Purpose
    relations: Annotated[dict[Name, Relation], Field(min_length=1)]
    forget: Annotated[dict[Name, Count | Subjects], Field(min_length=1)]
    retain: Annotated[dict[Name, Shares], Field(min_length=1)]
    twins: dict[Name, Count | Subjects]
    neutral: Neutral
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> CaseFile:
        problems = [*self._unknown_relations(), *self._unknown_subjects(), *self._overlaps()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _unknown_relations(self) -> list[str]:
        known = ", ".join(self.relations)
        named = {"forget": self.forget, "retain": self.retain, "twins": self.twins}
        return [
            f"{where} names the relation {r!r}, which is not among the relations ({known})"
            for where, parts in named.items()
            for r in parts
            if r not in self.relations
        ]

    def _named(self) -> list[tuple[str, str, list[str]]]:
        """Every list of subjects that the file names: where, relation, subjects."""
        lists = [("forget", r, v) for r, v in self.forget.items() if isinstance(v, list)]
        for r, shares in self.retain.items():
            sides = (("working", shares.working), ("sealed", shares.sealed))
            lists += [(f"retain.{side}", r, v) for side, v in sides if isinstance(v, list)]
        return lists

    def _unknown_subjects(self) -> list[str]:
        return [
            f"{where} names {subject!r}, which has no fact under relations.{r}.facts"
            for where, r, subjects in self._named()
            if r in self.relations
            for subject in subjects
            if subject not in self.relations[r].facts
        ]

    def _overlaps(self) -> list[str]:
        seen: dict[tuple[str, str], str] = {}
        problems = []
        for where, r, subjects in self._named():
            for subject in subjects:
                if (first := seen.setdefault((r, subject), where)) != where:
                    problems.append(f"{subject!r} of {r} is in both {first} and {where}; keep it in one")
        for r, content in self.relations.items():
            problems += [
                f"the template {t!r} of {r} is in working and in sealed or paraphrases; keep it in one"
                for t in content.working
                if t in (*content.sealed, *content.paraphrases)
            ]
        for r, twins in self.twins.items():
            real = self.relations[r].facts if r in self.relations else {}
            problems += [
                f"the twin {t!r} of {r} is a real subject"
                for t in (twins if isinstance(twins, list) else ())
                if t in real
            ]
        for r, shares in self.retain.items():
            if isinstance(shares.working, float) and isinstance(shares.sealed, float):
                total = shares.working + shares.sealed
                if total > 1 + 1e-9:
                    problems.append(f"retain.{r} shares add up to {total:g}; they may be 1 at most")
        return problems


def read(path: Path) -> tuple[CaseFile, str]:
    """A validated case file and the SHA-256 of its text.

    Raises:
        UserError: no such file, not YAML, or not a case. The message lists all errors, each with line and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the case file {str(path)!r} cannot be read ({error}).") from error
    lines: dict[tuple[str | int, ...], int] = {}
    repeats: list[str] = []
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise UserError(f"the case file {str(path)!r} is not valid YAML{where}: {problem}. Fix that line.") from error
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"the case file {str(path)!r} holds no mapping; it needs name, purpose, relations, forget ...")
    data = _plain(node, (), lines, repeats)
    try:
        spec, problems = CaseFile.model_validate(data), repeats
    except ValidationError as error:
        spec, problems = None, repeats + [_describe(e, lines) for e in error.errors()]
    if spec is None or problems:
        listed = "\n".join(f"  - {p}" for p in dict.fromkeys(problems))
        raise UserError(f"the case file {str(path)!r} has {len(dict.fromkeys(problems))} error(s):\n{listed}")
    return spec, hashlib.sha256(text.encode()).hexdigest()


def _plain(node: yaml.Node, at: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int], repeats: list[str]):
    """A node as nested dicts, lists and strings. Scalars stay text, so that the element `No` is not `False`."""
    lines[at] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        out = {}
        for key, value in node.value:
            here = (*at, key.value)
            if key.value in out:
                repeats.append(f"line {key.start_mark.line + 1}, {_dotted(here)}: given twice")
            out[key.value] = _plain(value, here, lines, repeats)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_plain(value, (*at, i), lines, repeats) for i, value in enumerate(node.value)]
    return node.value


def _describe(error: Any, lines: dict[tuple[str | int, ...], int]) -> str:
    at = error["loc"]
    while at not in lines:
        at = at[:-1]
    field = error["loc"] if error["type"] == "missing" else at
    message = error["msg"].removeprefix("Value error, ")
    return f"line {lines[at]}, {_dotted(field) or 'the file'}: {message}"


def _dotted(at: tuple[str | int, ...]) -> str:
    return ".".join(map(str, at))
