"""Freed memory goes back to the system."""

import ctypes
import sys

import psutil
import pytest
import torch

from loka._util.malloc import release

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


@pytest.mark.skipif(not GLIBC, reason="only glibc keeps what was freed and can be asked for it")
def test_release_gives_freed_pieces_back() -> None:
    """Half of 200 MiB in small pieces is freed, and the system gets none of it until `release` runs."""
    torch.ones(2**22)  # freed at once: glibc then holds pieces smaller than this one
    pieces = [torch.ones(2**18) for _ in range(200)]
    full = psutil.Process().memory_info().rss
    del pieces[::2]
    freed = full - psutil.Process().memory_info().rss
    release()
    assert full - psutil.Process().memory_info().rss > freed + 50 * 2**20
