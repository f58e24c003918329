"""All requests with their days left, the most urgent first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal

from .deadline import days_left, in_words
from .record import Request

SOON = 7  # days

Level = Literal["overdue", "soon", "fine", "ended"]


@dataclass(frozen=True)
class Line:
    """A request as the overview shows it; `days` is `None` after the request has ended."""

    request: Request
    days: int | None
    level: Level
    words: str


def overview(requests: Iterable[Request], today: date) -> list[Line]:
    """A line for each request: open ones by days left, then ended ones, the latest first."""
    lines = [_line(request, today) for request in requests]
    running = sorted((line for line in lines if line.days is not None), key=lambda line: (line.days, line.request.id))
    ended = sorted((line for line in lines if line.days is None), key=lambda line: line.request.id)
    return [*running, *sorted(ended, key=lambda line: line.request.ended or today, reverse=True)]


def _line(request: Request, today: date) -> Line:
    if not request.state.open:
        return Line(request, None, "ended", f"{request.status} on {request.ended}")
    days = days_left(request.due, today)
    level: Level = "overdue" if days < 0 else "soon" if days <= SOON else "fine"
    return Line(request, days, level, in_words(days))
