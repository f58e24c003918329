"""Give freed memory back to the system."""

from __future__ import annotations

import ctypes
import sys


def release() -> None:
    """Give back the memory that the C library (glibc) still holds after it was freed.

    glibc holds it in pieces that may be too small for the next large tensors, so a second training would need new
    memory on top of that of the first.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
