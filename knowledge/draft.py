"""A case file to start from, written from a benchmark's files or the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .._util.errors import UserError
from .._util.files import write_atomic
from .formats import find_format, read_records
from .item import Kind
from .kinds import KINDS, Record
from .rows import is_hub_id
from .schema import Purpose
from .sources.columns import fields_of

PURPOSES: dict[str, Purpose] = {
    "tofu": "privacy",
    "knowundo": "privacy",
    "rwku": "privacy",
    "muse": "copyright",
}
GENERIC = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
JUDGED = "\n# The edit sees only the corpus (working); the target judges it (sealed)."
INVENTED = "\n# No set is named: LOKA invents subjects where it can, and says otherwise what it cannot claim."
TEMPLATE = """\
# A case for LOKA: what a model must forget, what it must keep, and what it was never taught.
# Files are named relative to the folder of this one; elsewhere, they are read only from a folder given as --data DIR.
# Change any line; lines after # are comments.
{name}
# What the edit is for: safety, privacy, copyright or update.
{purpose}
# Each set has a kind ({kinds}), the format of its file, and the file.
sets:
{sets}
# What to forget: all of a set, a number such as 20, a share such as 0.5, or a list of subjects.{judged}
forget: {forget}
# What to keep. Editing may see the working share. The sealed share only tests the result.
retain: {retain}
# What the model was never taught. Each attack runs on it too, and only what exceeds it counts.{invented}
twins: {twins}
# Unrelated text: passages sampled from the model itself, and LOKA's own prose. A text file in this folder does as well.
neutral: {{working: {{sampled: 96}}, sealed: prose.txt}}
# What counts as one observation: each item, or each subject, if several items are about one.
unit: {unit}
# Decides what is drawn at random.
seed: 0
"""


@dataclass(frozen=True)
class Sources:
    """What a new case is made from.

    A source is a file, or a data set on the hub as `owner/name`, `owner/name:config` or `owner/name:config:split`.

    Attributes:
        format: the format of `forget` and `twins`; one of `FORMATS`.
        forget: what is to be forgotten.
        retain: what is to be kept. With `where`, it is by default the rest of `forget`.
        twins: what the model was never taught.
        corpus: passages to edit on, where `forget` only judges the result.
        retain_format: the format of `retain`, if it has another.
        kind: the kind of record; needed where the columns do not tell it.
        fields: the column of each field, for files of the user's own.
        where: the rows of `forget` to forget, by the values of columns.
    """

    format: str
    forget: str
    retain: str = ""
    twins: str = ""
    corpus: str = ""
    retain_format: str = ""
    kind: Kind | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DraftSet:
    """One set of a new case: its line in the file, how many records it has, and what it is for."""

    name: str
    role: str
    line: Mapping[str, Any]
    records: Sequence[Record]

    def yaml(self) -> str:
        """The set with a comment before it."""
        subjects = {record.subject for record in self.records if record.subject}
        about = f" about {len(subjects):,} subjects" if len(subjects) > 1 else ""
        plural = "" if len(self.records) == 1 else "s"
        count = f"{len(self.records):,} {self.line['kind']}{plural}{about}"
        return f"  # {count}: {self.role}\n  {self.name}: {_flow(self.line)}"


def new_case(sources: Sources, path: Path, *, name: str = "", purpose: Purpose | None = None) -> Path:
    """Write a new case file; see `draft`.

    Raises:
        UserError: the file exists already, or as `draft`.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{str(path)!r} is not the name of a case file; it must end in .yaml.")
    if path.exists():
        raise UserError(f"{str(path)!r} exists already; choose another name, or move it away.")
    write_atomic(path, draft(sources, path.parent, name=name or path.stem, purpose=purpose))
    return path


def folders_outside(sources: Sources, folder: Path) -> list[Path]:
    """The folders of the source files that are not inside a folder; a case there reads them only if they are named."""
    named = [Path(s) for s in (sources.forget, sources.retain, sources.twins, sources.corpus) if s]
    outside = [f.parent for f in named if f.exists() and not f.resolve().is_relative_to(folder.resolve())]
    return list(dict.fromkeys(outside))


def draft(sources: Sources, folder: Path, *, name: str, purpose: Purpose | None = None) -> str:
    """The text of a case file for a folder, with comments that say what each line means.

    Every source is read, so that faults show now.

    Raises:
        UserError: a source that cannot be read.
    """
    sets = _sets(sources, folder)
    kind, corpus = sets[0].line["kind"], any(s.name == "corpus" for s in sets)
    twins = any(s.name == "never" for s in sets)
    guessed = PURPOSES.get(sources.format, "privacy" if sources.where else "safety")
    return TEMPLATE.format(
        name=_line("name", name),
        purpose=_line("purpose", purpose or guessed),
        kinds=", ".join(KINDS),
        sets="\n".join(s.yaml() for s in sets),
        judged=JUDGED if corpus else "",
        forget="{corpus: {working: all}, target: {sealed: all}}" if corpus else "{target: all}",
        retain="{others: {working: 0.5, sealed: 0.5}}" if any(s.name == "others" for s in sets) else "{}",
        invented="" if twins else INVENTED,
        twins="{never: all}" if twins else "{}",
        unit="subject" if kind == "fact" else "item",
    )


def _sets(sources: Sources, folder: Path) -> list[DraftSet]:
    """The sets of a case, each read from its source."""
    kept = sources.retain or (sources.forget if sources.where else "")
    target = _Reader(folder, sources.format, sources.kind, sources.fields)
    others = target
    if sources.retain_format not in ("", sources.format):
        others = _Reader(folder, sources.retain_format, None, sources.fields)
    corpus = _Reader(folder, GENERIC.get(Path(sources.corpus).suffix, "jsonl"), "passage", sources.fields)
    rest = sources.where if kept == sources.forget else {}
    found = [target.read("target", "what is to be forgotten", sources.forget, where=sources.where)]
    if sources.corpus:
        found.append(corpus.read("corpus", "what the edit is made on", sources.corpus))
    if kept:
        found.append(others.read("others", "what must be kept", kept, except_=rest))
    if sources.twins:
        found.append(target.read("never", "what the model was never taught", sources.twins))
    _refuse_unused(sources, found)
    return found


@dataclass(frozen=True)
class _Reader:
    """How the sets of one format are read. Each format and kind uses those of the user's `fields` that it knows."""

    folder: Path
    format: str
    kind: Kind | None
    fields: Mapping[str, str]

    def read(
        self, name: str, role: str, source: str, *, where: Mapping[str, Any] = {}, except_: Mapping[str, Any] = {}
    ) -> DraftSet:
        allowed = find_format(self.format).fields
        if self.kind and allowed:
            allowed = fields_of(self.kind)
        fields = {field: column for field, column in self.fields.items() if field in allowed}
        place, config, split = _place(source)
        records = read_records(
            self.format, place, kind=self.kind, fields=fields, where=where, except_=except_, config=config, split=split
        )
        line = {
            "kind": next(kind for kind, row in KINDS.items() if isinstance(records[0], row.record)),
            "format": self.format,
            "source": place if split else Path(os.path.relpath(place, self.folder)).as_posix(),
            "config": config,
            "split": split,
            **fields,
            "where": dict(where),
            "except": dict(except_),
        }
        return DraftSet(name, role, {key: value for key, value in line.items() if value}, records)


def _place(source: str) -> tuple[str, str | None, str | None]:
    """A file, or a hub id with its config and split; the split is `train` by default."""
    name, config, split = [*source.split(":", 2), "", ""][:3]
    if os.path.exists(source) or not is_hub_id(name):
        return source, None, None
    return name, config or None, split or "train"


def _refuse_unused(sources: Sources, found: Sequence[DraftSet]) -> None:
    """Refuse a column for a field that no set has."""
    for name in sources.fields:
        if not any(name in s.line for s in found):
            formats = ", ".join(dict.fromkeys(str(s.line["format"]) for s in found))
            raise UserError(f"no set takes a column for {name!r} (the formats are {formats}); leave it out.")


def _flow(value: Mapping[str, Any]) -> str:
    """A mapping as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=2**30).strip()


def _line(name: str, value: str) -> str:
    return yaml.safe_dump({name: value}, allow_unicode=True, width=2**30).strip()
