"""Batches: requests that are due together become one edit, and each is verified by itself."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from .._util.errors import UserError
from .._util.provenance import read_provenance
from .deadline import days_left
from .execution import EDITS
from .job import JOINT
from .overview import SOON
from .record import Request
from .register import Register


def due(register: Register, *, within: int = SOON, out: Path | None = None, today: date | None = None) -> list[str]:
    """The requests that make the next batch: a method is chosen that edits, and they are due; the most urgent first.

    Args:
        within: so many days from today, or overdue.
        out: a run folder. If a batch was begun there, it is that one, so that the command can be given again.

    Raises:
        UserError: fewer days than none, or no such request.
    """
    if within < 0:
        raise UserError(f"--within {within} days is not possible; give 0 or more.")
    if out is not None and (begun := _begun(register, out)):
        return begun
    day = today or date.today()
    ready = [r for r in register.requests() if r.status == "chosen" and r.method in EDITS]
    found = sorted((r for r in ready if days_left(r.due, day) <= within), key=lambda r: (r.due, r.id))
    if not found:
        raise UserError(
            f"no request with a method that edits is due within {within} days{_next(ready)}; name requests by their "
            "ids, or give --within."
        )
    return [request.id for request in found]


def _begun(register: Register, out: Path) -> list[str]:
    """The requests of the batch that was begun in a run folder."""
    stored = read_provenance(out)
    ids = str(stored.arguments.get("case", "")).split(JOINT) if stored else []
    known = {request.id for request in register.requests()}
    return ids if ids and known.issuperset(ids) else []


def _next(ready: list[Request]) -> str:
    first = min(ready, key=lambda r: (r.due, r.id), default=None)
    return f" (the next is {first.id}, on {first.due})" if first else ""
