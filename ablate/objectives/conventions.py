"""The conventions of a loss whose published implementation departs from its definition."""

from __future__ import annotations

from ..._util.errors import UserError

STATED = "stated"
OPEN_UNLEARNING = "open-unlearning"


def peers(convention: str) -> bool:
    """Whether the convention is OpenUnlearning's. Raises `UserError` for an unknown one."""
    if convention not in (STATED, OPEN_UNLEARNING):
        raise UserError(f"{convention!r} is not a convention; choose {STATED!r} (the default) or {OPEN_UNLEARNING!r}.")
    return convention == OPEN_UNLEARNING
