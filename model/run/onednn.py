"""Linear maps in single precision on a CPU, run by oneDNN, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..anatomy import feature_dim
from .modules import replaced_forward

if TYPE_CHECKING:
    from ..load import Model

_rounds = ContextVar("_rounds", default=False)
NARROW = torch.backends.cpu.get_cpu_capability() == "AVX2"


@contextmanager
def onednn_linear(model: Model) -> Iterator[None]:
    """Run the model's linear maps by oneDNN where that is possible.

    Results differ only by rounding. This takes half the time on processors that torch's default uses poorly (AMD's with
    AVX-512). Passes inside can be trained. A map with another forward function keeps it. Nothing changes under
    autocast, or where blocks run again in the backward pass, which may come after the context.
    """
    with ExitStack() as stack:
        if _maps(model):
            for module in model.hf.modules():
                if type(module).__name__ in ("Linear", "Conv1D") and "forward" not in module.__dict__:
                    stack.enter_context(replaced_forward(module, partial(_mapped, module)))
        yield


@contextmanager
def bfloat16_products(model: Model, *, on: bool = True) -> Iterator[None]:
    """Round the factors of products to bfloat16 where that is faster. Weights, sums and steps keep their precision.

    With oneDNN, only the factors of linear maps are rounded, and none on a processor without bfloat16 products. On
    other devices, and where blocks run again, this is torch's autocast. Nothing changes for a model that is not in
    single precision.
    """
    if not on or model.dtype is not torch.float32:
        yield
        return
    if not _maps(model):
        with torch.autocast(model.device.type, torch.bfloat16):
            yield
        return
    token = _rounds.set(True)
    try:
        yield
    finally:
        _rounds.reset(token)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.t() + bias`, by oneDNN where that is possible. Not for autograd."""
    if not _serves(x.device, x.dtype):
        return nn.functional.linear(x, weight, bias)
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # available since torch 2.9
    if not _rounds.get() or matmul is None:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"  # only here: attention's small products get slower
    try:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    finally:
        matmul.fp32_precision = before


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` of a backward pass, `b` a matrix: by torch on processors with no more than AVX2, else as `linear`."""
    return a @ b if NARROW else linear(a, b.t(), None)


def _maps(model: Model) -> bool:
    """Whether `onednn_linear` replaces a model's maps: not where blocks run again in the backward pass."""
    again = any(getattr(module, "gradient_checkpointing", False) for module in model.hf.modules())
    return _serves(model.device, model.dtype) and not again and not torch.is_autocast_enabled(model.device.type)


def _serves(device: torch.device, dtype: torch.dtype) -> bool:
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and device.type == "cpu" and dtype is torch.float32


def _mapped(module: nn.Module, x: Tensor) -> Tensor:
    weight = module.get_parameter("weight")
    weight = weight.t() if feature_dim(module, out=True) else weight
    bias = getattr(module, "bias", None)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        rows: Tensor = _Trained.apply(x.flatten(0, -2), weight, bias)
        return rows.unflatten(0, x.shape[:-1])  # outside the function, so that hooks can change it in place
    return linear(x, weight, bias)


class _Trained(torch.autograd.Function):
    """`linear` of rows `[row, feature]`, with gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (g,), (x, weight), needed = grads, ctx.saved_tensors, ctx.needs_input_grad
        return (
            product(g, weight) if needed[0] else None,
            product(g.t(), x) if needed[1] else None,
            g.sum(0) if needed[2] else None,
        )
