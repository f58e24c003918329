"""How much memory is free."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

GROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> float:
    """The bytes that this process and others may still take: of a GPU, or of the machine or the container it runs in.

    A container's limit is read where Linux has it for control groups of version 2.
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    free = float(psutil.virtual_memory().available)
    try:
        limit, used = ((GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cache = next(
            line for line in (GROUP / "memory.stat").read_text().splitlines() if line.startswith("inactive_file ")
        )
        return min(free, float(limit) - float(used) + float(cache.split()[1]))
    except (OSError, ValueError, StopIteration):  # no limit, or another system
        return free
