"""Whose arithmetic a loss follows, where a published implementation departs from the definition."""

from __future__ import annotations

from ..._util.errors import UserError

STATED = "stated"
OPEN_UNLEARNING = "open-unlearning"


def peers(convention: str) -> bool:
    """Whether OpenUnlearning's arithmetic is asked for; raises `UserError` for an unknown convention."""
    if convention not in (STATED, OPEN_UNLEARNING):
        raise UserError(f"{convention!r} is no convention; choose {STATED!r} (the default) or {OPEN_UNLEARNING!r}.")
    return convention == OPEN_UNLEARNING
