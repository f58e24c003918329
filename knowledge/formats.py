"""Every format that records can be read from, by its name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._util.errors import UserError
from . import sources
from .filters import Numbered, columns, require_column, select
from .item import Kind
from .kinds import KINDS, Record
from .rows import rows
from .sources import Table
from .sources.columns import fields_of, kinds_of

ANY = tuple(KINDS)
FIELDS = tuple(dict.fromkeys(field for kind in KINDS for field in fields_of(kind)))


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: its name in case files.
        read: its loader.
        kinds: the kinds of record that it can give; the first is the default, unless `tell` says another.
        fields: the fields that the user may give columns to; none where the format has columns of its own.
        tell: the kinds that a file with these columns can give, for formats in which files differ.
    """

    name: str
    read: Callable[[Table], list[Record]]
    kinds: tuple[Kind, ...]
    fields: tuple[str, ...] = ()
    tell: Callable[[Collection[str]], Sequence[Kind]] | None = None


def _by_question(name: str) -> Callable[[Collection[str]], Sequence[Kind]]:
    """Questions if there is such a column, otherwise passages."""
    return lambda names: ["question"] if name in names else ["passage"]


FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format("tofu", sources.tofu, ("question",)),
        Format("wmdp", sources.wmdp, ("choice",)),
        Format("mmlu", sources.mmlu, ("choice",)),
        Format("muse", sources.muse, ("question", "passage"), tell=_by_question("question")),
        Format("rwku", sources.rwku, ("question", "passage"), tell=_by_question("query")),
        Format("counterfact", sources.counterfact, ("fact",)),
        Format("known_facts", sources.known_facts, ("fact",)),
        Format("popqa", sources.popqa, ("question", "fact")),
        Format("knowundo", sources.knowundo, ("question",)),
        Format("lre", sources.lre, ("fact",)),
        Format("fact_completion", sources.fact_completion, ("fact",)),
        Format("jsonl", sources.columns, ANY, FIELDS, kinds_of),
        Format("csv", sources.columns, ANY, FIELDS, kinds_of),
        Format("parquet", sources.columns, ANY, FIELDS, kinds_of),
    )
}


def read_records(
    format: str,
    source: str | Path,
    *,
    kind: Kind | None = None,
    fields: Mapping[str, str] = {},
    where: Mapping[str, Any] = {},
    except_: Mapping[str, Any] = {},
    config: str | None = None,
    split: str | None = None,
) -> tuple[Record, ...]:
    """The records of a local file or of a data set on the hub, in the order of its rows.

    Args:
        format: one of `FORMATS`.
        source: see `knowledge.rows`.
        kind: the kind of record; by default the format's first, or the only one that the columns can give.
        fields: the column of each field, for `jsonl`, `csv` and `parquet`; a field's own name by default.
        where, except_: keep, or drop, the rows whose columns have the values given; see `filters.select`.
        config, split: those of a data set on the hub.

    Raises:
        UserError: an unknown format, a kind or field that it does not have, a file that cannot be read, a filter that
            leaves no row, or rows with problems. The message lists up to 10 of these, each with its row.
    """
    chosen, name = find_format(format), str(source)
    _check_fields(chosen, kind, fields)
    numbered = list(enumerate(rows(source, config=config, split=split), 1))
    for column in fields.values():
        require_column(name, numbered, column)
    selected = select(name, numbered, where, except_)
    return tuple(chosen.read(Table(name, kind or _told(chosen, name, selected, fields), selected, fields)))


def find_format(name: str) -> Format:
    """The row of a format.

    Raises:
        UserError: there is no such format.
    """
    if name not in FORMATS:
        raise UserError(f"{name!r} is not a format; choose one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def _check_fields(chosen: Format, kind: Kind | None, fields: Mapping[str, str]) -> None:
    if kind is not None and kind not in chosen.kinds:
        raise UserError(f"the format {chosen.name!r} gives no {kind!r}; choose from {', '.join(chosen.kinds)}.")
    unknown = next((field for field in fields if field not in chosen.fields), None)
    if unknown is not None and not chosen.fields:
        raise UserError(f"the format {chosen.name!r} has its own columns; leave out the column of {unknown!r}.")
    allowed = chosen.fields if kind is None else fields_of(kind)
    unknown = next((field for field in fields if field not in allowed), None)
    if unknown is not None:
        raise UserError(f"a {kind or 'record'} has no field {unknown!r}; choose from {', '.join(allowed)}.")


def _told(chosen: Format, source: str, numbered: Sequence[Numbered], fields: Mapping[str, str]) -> Kind:
    """The kind that a file gives by its columns."""
    if chosen.tell is None:
        return chosen.kinds[0]
    here = columns(row for _, row in numbered)
    names = {*here, *fields}
    able: list[Kind] = [kind for kind in chosen.tell(names) if not chosen.fields or set(fields) <= set(fields_of(kind))]
    if len(able) != 1:
        what = f"can be {' or '.join(able)}" if able else "have the fields of no kind"
        raise UserError(
            f"the rows of {source!r} {what} (they have {', '.join(here)}); name the kind"
            f"{'' if able else ', and the columns of its fields'}."
        )
    return able[0]
