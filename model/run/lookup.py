"""The inputs and outputs of a model's modules at chosen positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..batch import Batch, chunks, encode_texts
from .modules import hook_output

if TYPE_CHECKING:
    from ..load import Model


@torch.no_grad()
def inputs_at(model: Model, modules: Sequence[nn.Module], batch: Batch, at: Tensor) -> list[Tensor]:
    """The modules' inputs at one position of each row, `[row, d_in]` each, at least float32. Cost: one pass."""
    return _record(model, modules, batch, lambda read, _: _by_row(read, batch)[_rows(at), at])


@torch.no_grad()
def outputs_at(model: Model, modules: Sequence[nn.Module], batch: Batch, at: Tensor) -> list[Tensor]:
    """The modules' outputs at one position of each row, `[row, d_out]` each, at least float32. Cost: one pass."""
    return _record(model, modules, batch, lambda _, written: _by_row(written, batch)[_rows(at), at])


@torch.no_grad()
def inputs_of(
    model: Model, modules: Sequence[nn.Module], texts: Sequence[str], *, rows: int = 16
) -> Iterator[list[Tensor]]:
    """The modules' inputs at every token of texts, `[token, d_in]` each, batch by batch. Cost: one forward pass."""
    for part in chunks(len(texts), rows):
        batch = encode_texts(model, texts[part])
        real = batch.mask.bool()
        yield _record(model, modules, batch, lambda read, _, at=batch, real=real: _by_row(read, at)[real])


def second_moments(model: Model, modules: Sequence[nn.Module], texts: Sequence[str]) -> list[Tensor]:
    """The mean outer product of each module's input with itself over the tokens of texts, `[d_in, d_in]` in float64.

    Cost: one forward pass over the texts.
    """
    sums = [torch.zeros((), dtype=torch.float64, device=model.device) for _ in modules]
    tokens = 0
    for read in inputs_of(model, modules, texts):
        sums = [total + (x.t() @ x).double() for total, x in zip(sums, read, strict=True)]
        tokens += len(read[0])
    return [total / tokens for total in sums]


def _record(
    model: Model, modules: Sequence[nn.Module], batch: Batch, look: Callable[[Tensor, Tensor], Tensor]
) -> list[Tensor]:
    recorded: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        values = look(inputs[0], output)
        recorded[module] = values.clone().to(torch.promote_types(values.dtype, torch.float32))
        if len(recorded) == len(modules):
            raise _Complete

    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(hook_output(module, partial(keep, module)))
        stack.enter_context(suppress(_Complete))
        model.hf.base_model(**batch.inputs(), use_cache=False)
    return [recorded[module] for module in modules]


class _Complete(Exception):
    """Signals that every module has been read and that the layers above need not run."""


def _by_row(value: Tensor, batch: Batch) -> Tensor:
    """`[row, position, feature]`, also where a module sees positions without rows, as OPT's MLP does."""
    return value.view(*batch.ids.shape, -1)


def _rows(at: Tensor) -> Tensor:
    return torch.arange(len(at), device=at.device)
