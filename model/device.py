"""Where a model runs."""

from __future__ import annotations

import torch
from torch import nn

from .._util.errors import UserError, first_line
from .._util.memory import free_memory
from .precision import check_dtype

AUTO = "auto"
GIB = 2**30


def find_device(name: str) -> torch.device:
    """The device of a name.

    Raises:
        UserError: torch has no such device here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"torch has no device {name!r} here ({first_line(error)}); give 'cpu', 'auto', or one it has, such as "
            "'cuda'."
        ) from error


def roomiest(hf: nn.Module) -> torch.device:
    """The GPU with the most free memory, or the CPU where there is no GPU.

    Raises:
        UserError: the weights do not fit on any GPU, or the GPU lacks their number type.
    """
    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    if not gpus:
        return torch.device("cpu")
    best = max(gpus, key=free_memory)
    weights, free = sum(p.numel() * p.element_size() for p in hf.parameters()), free_memory(best)
    if weights > free:
        raise UserError(
            f"the weights take {weights / GIB:.1f} GiB, and the GPU with the most room, {best}, has {free / GIB:.1f} "
            "free; give --dtype bfloat16, or --device cpu."
        )
    check_dtype(next(hf.parameters()).dtype, best)
    return best
