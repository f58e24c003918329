"""Which rows of a file are read."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._util.errors import UserError
from .rows import Row

Numbered = tuple[int, Row]
Filter = Mapping[str, Any]


def select(source: str, rows: Sequence[Numbered], where: Filter, except_: Filter) -> tuple[Numbered, ...]:
    """The rows that match `where` and do not match `except_`, with their places in the file.

    A row matches a filter if every column that the filter names has the value, or one of the values, that it gives;
    so `except_` keeps exactly what the same `where` drops. Values are compared as text. An empty cell is an empty text.

    Raises:
        UserError: a column that no row has, or a filter that leaves no row.
    """
    for column in (*where, *except_):
        require_column(source, rows, column)
    kept = [(n, row) for n, row in rows if matches(row, where)]
    if not kept:
        raise UserError(f"no row of {source!r} has {_said(where)}; check the value, or take another.")
    left = [(n, row) for n, row in kept if not except_ or not matches(row, except_)]
    if not left:
        raise UserError(f"every row of {source!r} that is left has {_said(except_)}; check what except: names.")
    return tuple(left)


def require_column(source: str, rows: Sequence[Numbered], column: str) -> None:
    """Refuse the name of a column that no row has.

    Raises:
        UserError: there is none; the message lists the columns.
    """
    if not any(column in row for _, row in rows):
        raise UserError(f"{source!r} has no column {column!r}; it has {', '.join(columns(row for _, row in rows))}.")


def columns(rows: Iterable[Row]) -> list[str]:
    """The names of all columns, in the order in which they first occur."""
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def matches(row: Row, filter_: Filter) -> bool:
    """Whether every column of a filter has a value that it gives."""
    return all(as_text(row.get(column)) in _texts(values) for column, values in filter_.items())


def as_text(value: Any) -> str:
    """A value as it is compared: null as an empty text, whole numbers without a point, true and false in lower case.

    >>> as_text(3.0), as_text(True), as_text(None), as_text(" Ann ")
    ('3', 'true', '', 'Ann')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return unicodedata.normalize("NFC", str(value)).strip()


def _texts(values: Any) -> set[str]:
    return {as_text(value) for value in (values if isinstance(values, list | tuple | set) else [values])}


def _said(filter_: Filter) -> str:
    """A filter in words."""
    parts = [f"{column} = {' or '.join(repr(v) for v in sorted(_texts(values)))}" for column, values in filter_.items()]
    return " and ".join(parts)
