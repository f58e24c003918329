"""Weights of half precision, held in float32 for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from ..load import Model


def is_half(model: Model) -> bool:
    """Whether the weights have fewer than 32 bits."""
    return model.dtype.itemsize < 4


@contextmanager
def single_precision(model: Model, *, keep: bool = False) -> Iterator[Model]:
    """Hold weights of half precision in float32 while the context lasts; other models stay as they are.

    For what their own type is too coarse for: steps smaller than the distance between two neighbouring numbers, and
    differences between runs that hardly differ. Afterwards the weights are the same tensors as before, bit for bit.
    With `keep`, they hold what the float32 weights have become, rounded.

    Memory: 4 more bytes for each weight.
    """
    if not is_half(model):
        yield model
        return
    tensors: list[Tensor] = [*model.hf.parameters(), *model.hf.buffers()]
    stored = [(tensor, tensor.data) for tensor in tensors if tensor.is_floating_point() and tensor.dtype.itemsize < 4]
    try:
        for tensor, data in stored:
            tensor.data = data.float()
        yield model
    finally:
        for tensor, data in stored:
            if keep:
                data.copy_(tensor.data)
            tensor.data = data
