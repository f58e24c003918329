"""The register as one static page without scripts: a table in each order is there, and radio buttons choose one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .._util.files import write_atomic
from .overview import Line, overview
from .record import Request
from .terms import CHANNELS, GROUNDS, STATUSES, meanings

STEPS = tuple(STATUSES)


@dataclass(frozen=True)
class Column:
    """A column of the table; `key` sorts by it, and without one it does not sort."""

    name: str
    label: str
    key: Callable[[Line], Any] | None = None


@dataclass(frozen=True)
class Table:
    """The open requests in one order."""

    column: Column
    direction: str
    lines: Sequence[Line]


COLUMNS = (
    Column("days", "Days left", lambda line: (line.days, line.request.id)),
    Column("request", "Request", lambda line: line.request.id),
    Column("due", "Due"),
    Column("received", "Received", lambda line: (line.request.received, line.request.time, line.request.id)),
    Column("status", "Status", lambda line: (STEPS.index(line.request.status), line.days, line.request.id)),
    Column("ground", "Ground"),
)
DIRECTIONS = ("ascending", "descending")


def write_page(requests: Iterable[Request], path: Path, *, today: date | None = None) -> Path:
    """Write the page of all requests, whole or not at all.

    Raises:
        UserError: the place cannot be written.
        LokaError: the disk is full.
    """
    write_atomic(path, page(requests, today or date.today()))
    return path


def page(requests: Iterable[Request], today: date) -> str:
    """The page of all requests, as HTML. It holds pseudonyms, and no reasons or notes."""
    lines = overview(requests, today)
    running = [line for line in lines if line.days is not None]
    folder = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    sortable = [column for column in COLUMNS if column.key]
    style = folder.get_template("page.css").render(columns=sortable, directions=DIRECTIONS)
    return folder.get_template("page.html").render(
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        today=today,
        columns=COLUMNS,
        sortable=sortable,
        directions=DIRECTIONS,
        tables=[_table(column, direction, running) for column in sortable for direction in DIRECTIONS],
        running=running,
        ended=[line for line in lines if line.days is None],
        summary=_summary(running),
        statuses=STATUSES,
        channels=meanings(CHANNELS),
        grounds=meanings(GROUNDS),
    )


def _table(column: Column, direction: str, lines: Sequence[Line]) -> Table:
    assert column.key is not None
    return Table(column, direction, sorted(lines, key=column.key, reverse=direction == "descending"))


def _summary(running: Sequence[Line]) -> str:
    """How many requests are open and how many of them need attention, in words."""
    overdue, soon = (sum(line.level == level for line in running) for level in ("overdue", "soon"))
    if not running:
        return "No request is open."
    many = "1 request is open" if len(running) == 1 else f"{len(running)} requests are open"
    return f"{many}: {overdue or 'none'} overdue, {soon or 'none'} due within a week."
