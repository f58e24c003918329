"""Memory that is free again, given back to the system."""

from __future__ import annotations

import ctypes
import sys


def release() -> None:
    """Hand back what was freed, where the C library has kept it (glibc does).

    It keeps it in pieces, into which the largest tensors of the next step may not fit: a training's leftovers would be
    held beside what the next one needs.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
