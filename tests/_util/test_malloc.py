"""Memory that is free again."""

import ctypes
import sys

import psutil
import pytest
import torch

from loka._util.malloc import release

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


@pytest.mark.skipif(not GLIBC, reason="only glibc keeps what was freed and can be asked for it")
def test_what_was_freed_goes_back_to_the_system() -> None:
    """Every other of 200 MiB in small pieces is freed: the system sees none of it until it is handed back."""
    torch.ones(2**22)  # freed at once; pieces smaller than the largest so far are kept, not handed back
    pieces = [torch.ones(2**18) for _ in range(200)]
    full = psutil.Process().memory_info().rss
    del pieces[::2]
    freed = full - psutil.Process().memory_info().rss
    release()
    assert full - psutil.Process().memory_info().rss > freed + 50 * 2**20
