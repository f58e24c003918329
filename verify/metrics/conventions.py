"""Whose definition of a metric is meant: ours, as its docstring states it, or a benchmark's as committed."""

from __future__ import annotations

from ..._util.errors import UserError

STATED = "stated"
OPEN_UNLEARNING = "open-unlearning"
TOFU = "tofu"
MUSE = "muse"
MIMIR = "mimir"
UDS = "uds"


def known(convention: str, *peers: str) -> None:
    """Raise `UserError` unless the convention is `stated` or one of the peers' that a metric knows."""
    if convention not in (STATED, *peers):
        raise UserError(f"{convention!r} is no convention of this metric; choose one of {', '.join((STATED, *peers))}.")
