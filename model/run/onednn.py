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

from ..layout import feature_dim
from .modules import replaced_forward

if TYPE_CHECKING:
    from ..load import Model

_rounds = ContextVar("_rounds", default=False)
NARROW = torch.backends.cpu.get_cpu_capability() == "AVX2"


@contextmanager
def onednn_linear(model: Model) -> Iterator[None]:
    """The model's linear maps by oneDNN, where it is there and serves.

    The result is the same but for rounding; on processors that torch's default does not use to the full
    (AMD's with AVX-512) it takes half the time. What is run inside can be trained; maps that were given another
    forward function already keep it. Nothing changes under autocast, or where blocks run again in the backward pass,
    which comes when this is over.
    """
    with ExitStack() as stack:
        if _maps(model):
            for module in model.hf.modules():
                if type(module).__name__ in ("Linear", "Conv1D") and "forward" not in module.__dict__:
                    stack.enter_context(replaced_forward(module, partial(_mapped, module)))
        yield


@contextmanager
def bfloat16_products(model: Model, *, on: bool = True) -> Iterator[None]:
    """Passes with factors rounded to bfloat16, where that is faster; weights, sums and steps stay as they are.

    With oneDNN it is the factors of linear maps alone, attention and all else are exact; where the processor has no
    such products, it does not round. On other devices, and where blocks run again, it is torch's autocast. Nothing
    changes for a model that is not in single precision.
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
    """`x @ weight.t() + bias` by oneDNN where it serves; apart from autograd."""
    if not _serves(x.device, x.dtype):
        return nn.functional.linear(x, weight, bias)
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # since 2.9
    if not _rounds.get() or matmul is None:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"  # here alone: attention's small products lose by it
    try:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    finally:
        matmul.fp32_precision = before


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` of a backward pass, `b` a matrix: as `linear`, but where the processor has no more than AVX2.

    There torch's default is faster: a full training step of SmolLM2 on 48 short rows, two cores, took 5.2 s by it and
    6.5 s by oneDNN.
    """
    return a @ b if NARROW else linear(a, b.t(), None)


def _maps(model: Model) -> bool:
    """Whether `onednn_linear` serves a model: not where blocks run again in the backward pass, after the context."""
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
        return rows.unflatten(0, x.shape[:-1])  # here, or hooks could not change it in place
    return linear(x, weight, bias)


class _Trained(torch.autograd.Function):
    """The same of rows `[row, feature]`, with gradients."""

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
