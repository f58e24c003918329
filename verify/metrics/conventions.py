"""Conventions: which definition of a metric to use, ours as its docstring states it, or a benchmark's own."""

from __future__ import annotations

from ..._util.errors import UserError

STATED = "stated"
OPEN_UNLEARNING = "open-unlearning"
TOFU = "tofu"
MUSE = "muse"
MIMIR = "mimir"
UDS = "uds"


def check_convention(convention: str, *peers: str) -> None:
    """Check that a convention is `stated` or one of a metric's peers.

    Raises:
        UserError: it is none of these.
    """
    if convention not in (STATED, *peers):
        raise UserError(
            f"{convention!r} is not a convention of this metric; choose one of {', '.join((STATED, *peers))}."
        )
