"""The number types of weights, and which of them a device can compute in."""

from __future__ import annotations

import torch
from torch import nn

from .._util.errors import UserError, first_line

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}


def dtype_of(name: str) -> torch.dtype:
    """The number type of a name.

    Raises:
        UserError: another name.
    """
    if name not in DTYPES:
        raise UserError(f"{name!r} is not a number type for weights; choose one of {', '.join(DTYPES)}.")
    return DTYPES[name]


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Refuse a number type that a device cannot train in: the products and norms of a block, and their gradients.

    Raises:
        UserError: such a type; no floating-point type.
    """
    try:
        with torch.enable_grad():
            x = torch.ones(2, 8, dtype=dtype, device=device, requires_grad=True)
            y = nn.functional.layer_norm(x, (8,)) @ x.t()
            (nn.functional.silu(y).softmax(-1) @ x).sum().backward()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        name = str(dtype).removeprefix("torch.")
        raise UserError(
            f"{device.type} does not compute in {name} here ({first_line(error)}); choose another of "
            f"{', '.join(DTYPES)}, or another device."
        ) from error
