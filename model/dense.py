"""Linear maps in single precision on a CPU, run by oneDNN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .layout import feature_dim

if TYPE_CHECKING:
    from .load import Model


@contextmanager
def instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Another forward function for a module."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


@contextmanager
def dense(model: Model) -> Iterator[None]:
    """The model's linear maps by oneDNN, where it is there and serves.

    The result is the same but for rounding; on processors that torch's default does not use to the full
    (AMD's with AVX-512) it takes half the time.
    """
    linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
    with ExitStack() as stack:
        if linear is not None and model.device.type == "cpu" and model.dtype is torch.float32:
            for module in model.hf.modules():
                if type(module).__name__ in ("Linear", "Conv1D") and "forward" not in module.__dict__:
                    stack.enter_context(instead(module, partial(_linear, linear, module)))
        yield


def _linear(linear: Callable[..., Tensor], module: nn.Module, x: Tensor) -> Tensor:
    weight = module.get_parameter("weight")
    weight = weight.t() if feature_dim(module, out=True) else weight
    return linear(x, weight, getattr(module, "bias", None), "none", [], "")
