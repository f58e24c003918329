"""What all loaders share: the table that they read, and the cells of a row, whose problems are collected."""

from __future__ import annotations

import datetime
import decimal
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..._util.errors import UserError
from ..item import Kind
from ..kinds import Passage, Question, Record
from ..rows import Row
from ..texts import BOM

LISTED = 10  # problems that one error lists
BAR = "|"
PLAIN = (str, int, float, decimal.Decimal, datetime.date, datetime.time)


@dataclass(frozen=True)
class Table:
    """The rows that a loader reads.

    Attributes:
        source: the file or hub id, for messages.
        kind: the kind of record that is wanted.
        rows: each row, with its place in the file from 1.
        fields: the column of each field, for formats whose columns the user may name.
    """

    source: str
    kind: Kind
    rows: tuple[tuple[int, Row], ...]
    fields: Mapping[str, str]

    @property
    def bars(self) -> bool:
        """Whether lists are texts divided by `|`, because the file has no lists of its own."""
        return self.source.lower().removesuffix(".gz").endswith((".csv", ".tsv"))


class Cells:
    """The cells of one row as clean text. `problems` collects what is wrong with them.

    Every method that takes several names reads the first of these columns that holds something.
    """

    def __init__(self, row: Row, number: int = 0, fields: Mapping[str, str] | None = None, bars: bool = False) -> None:
        self.row, self.number, self.bars = row, number, bars
        self.fields = fields or {}
        self.problems: list[str] = []

    def column(self, field: str) -> str:
        """The column of a field."""
        return self.fields.get(field, field)

    def value(self, *fields: str) -> Any:
        """A cell as it stands in the file, or None."""
        cells = (self.row.get(self.column(field)) for field in fields)
        return next((cell for cell in cells if cell is not None), None)

    def require(self, *fields: str) -> Any:
        """A cell as it stands in the file; None is a problem."""
        if (cell := self.value(*fields)) is None:
            names = [self.column(field) for field in fields]
            here = [name for name in names if name in self.row]
            has = ", ".join(str(name)[:40] for name in list(self.row)[:12])
            self.refuse(f"{here[0]!r} is empty" if here else f"no {' or '.join(names)} (it has {has})")
        return cell

    def text(self, *fields: str) -> str:
        """A text that must be there."""
        cell, before = self.require(*fields), len(self.problems)
        cleaned = self.clean(cell, self._named(fields))
        if not cleaned and cell is not None and len(self.problems) == before:
            self.refuse(f"{self._named(fields)} is empty")
        return cleaned

    def optional(self, *fields: str) -> str:
        """A text, or an empty one."""
        return self.clean(self.value(*fields), self._named(fields))

    def texts(self, *fields: str) -> tuple[str, ...]:
        """The distinct texts of a cell that holds none, one or several."""
        found = self.members(self.value(*fields), self._named(fields))
        return tuple(dict.fromkeys(text for text in found if text))

    def answers(self, *fields: str) -> tuple[str, ...]:
        """The distinct texts of a cell that must hold at least one: the answer, then its aliases."""
        cell, before = self.require(*fields), len(self.problems)
        listed = cell if isinstance(cell, list | tuple) else [cell]
        found = tuple(dict.fromkeys(text for member in listed if (text := self.clean(member, self._named(fields)))))
        if not found and cell is not None and len(self.problems) == before:
            self.refuse(f"{self._named(fields)} is empty")
        return found or ("",)

    def members(self, cell: Any, name: str) -> list[str]:
        """The texts of a list, or of a text divided by `|`; a single value is a list of one."""
        if isinstance(cell, str) and self.bars:
            cell = cell.split(BAR)
        listed = cell if isinstance(cell, list | tuple) else [cell]
        return [self.clean(member, name) for member in listed]

    def clean(self, value: Any, name: str) -> str:
        """A value as text, without byte order marks and the space around it."""
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, PLAIN):
            self.refuse(f"{name} must be text, but it is {reprlib.repr(value)}")
            return ""
        text = str(value).replace(BOM, "").strip()
        if "\0" in text:
            self.refuse(f"{name} has a NUL character in it")
        if any("\ud800" <= character <= "\udfff" for character in text):
            self.refuse(f"{name} has half of a surrogate pair in it, which is not a character")
        return text

    def refuse(self, problem: str) -> None:
        """Add a problem."""
        self.problems.append(problem)

    def _named(self, fields: Sequence[str]) -> str:
        """The column that is read, for messages."""
        names = [self.column(field) for field in fields]
        return repr(next((name for name in names if self.row.get(name) is not None), names[0]))


def each(table: Table, make: Callable[[Cells], Record]) -> list[Record]:
    """A record from each row.

    Raises:
        UserError: rows with problems; the message lists them, each with its row's number.
    """
    found: list[Record] = []
    problems: list[tuple[int, str]] = []
    for number, row in table.rows:
        cells = Cells(row, number, table.fields, table.bars)
        found.append(make(cells))
        problems += [(number, problem) for problem in cells.problems]
    refuse(table, problems)
    return found


def refuse(table: Table, problems: Sequence[tuple[int, str]]) -> None:
    """Raise one error that lists the problems of a table's rows, if there are any.

    A problem that all rows share, such as a column that is not there, is listed once.
    """
    if not problems:
        return
    counts = Counter(problem for _, problem in problems)
    shared = {problem for problem, n in counts.items() if n == len(table.rows) > 1}
    lines = [f"every row: {problem}" for problem in counts if problem in shared]
    lines += [f"row {number}: {problem}" for number, problem in problems if problem not in shared]
    if len(lines) > LISTED:
        lines[LISTED:] = [f"and {len(lines) - LISTED} more"]
    listed = "\n".join(f"  - {line}" for line in lines)
    raise UserError(f"{table.source!r} has rows that cannot be used; fix them or leave them out:\n{listed}")


def passage(cells: Cells, text: str, start: str = "", subject: str = "", questions: Sequence[Question] = ()) -> Passage:
    """A passage; a text with too few words to be begun and continued is a problem."""
    made = Passage(text, start, subject, tuple(questions))
    if text and not made.divides:
        cells.refuse(f"the text {reprlib.repr(text)} is too short to be begun and continued")
    return made


def without(texts: Sequence[str], *others: str) -> tuple[str, ...]:
    """The texts that are none of the others."""
    return tuple(text for text in texts if text not in others)


def spelled(name: str, text: str) -> str:
    """A name as a text spells it, whatever the case, the spaces and a stop at its end; else the name itself.

    >>> spelled("iPod Mini", "IPod Mini, developed by"), spelled("Ann", "Anna")
    ('IPod Mini', 'Ann')
    """
    words = r"\s+".join(map(re.escape, name.rstrip(".").split()))
    found = re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) if words and not stands(name, text) else None
    return found.group() if found else name


def stands(name: str, text: str) -> bool:
    """Whether a name stands in a text as whole words."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None
