"""Read and replace the outputs of a model's blocks, on the Hugging Face model itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ..._util.errors import UserError
from .modules import replace_output

Change = Callable[[int, Tensor], Tensor | None]


def blocks(hf: nn.Module) -> nn.ModuleList:
    """The blocks of a causal model of transformers, in order.

    Raises:
        UserError: no list of modules has the number of layers that the configuration names.
    """
    n = getattr(hf.config, "num_hidden_layers", None)
    found = next((m for m in hf.modules() if isinstance(m, nn.ModuleList) and len(m) == n), None)
    if found is None:
        raise UserError(f"{type(hf).__name__} has no list of {n} blocks; give a causal model of transformers.")
    return found


@torch.no_grad()
def block_outputs(hf: nn.Module, ids: Tensor) -> Tensor:
    """The residual stream after each block, before any final norm, `[layer, position, d_model]`.

    `ids`: one text's tokens, `[position]`.
    """
    outputs: list[Tensor] = []
    run_with_changes(hf, ids[None], lambda _, value: outputs.append(value[0]))
    return torch.stack(outputs)


@torch.no_grad()
def run_patched(hf: nn.Module, ids: Tensor, states: Tensor, *, layers: Sequence[int], span: slice) -> Tensor:
    """Replace one layer's output in a span of positions, in one run for each layer.

    Args:
        hf: a causal model of transformers.
        ids: one text's tokens, `[position]`.
        states: the new outputs, `[layer, position, d_model]`, of all layers and positions.
        layers: the layers to replace.
        span: the positions to replace.

    Returns:
        Logits `[len(layers), position, vocabulary]`.
    """

    def change(layer: int, value: Tensor) -> Tensor | None:
        if layer not in layers:
            return None
        value = value.clone()
        value[layers.index(layer), span] = states[layer, span].to(value)
        return value

    return run_with_changes(hf, ids.expand(len(layers), -1), change)


def run_with_changes(hf: nn.Module, ids: Tensor, change: Change) -> Tensor:
    """Logits `[row, position, vocabulary]` with each block's output passed through `change(layer, output)`.

    If `change` returns `None`, the output stays. `ids`: `[row, position]`, without padding.
    """
    with replace_block_outputs(hf, change):
        return hf(input_ids=ids, use_cache=False).logits


@contextmanager
def replace_block_outputs(hf: nn.Module, change: Change) -> Iterator[None]:
    """Pass each block's output through `change(layer, output)`, for as long as the context lasts."""
    with ExitStack() as stack:
        for layer, block in enumerate(blocks(hf)):
            stack.enter_context(replace_output(block, partial(change, layer)))
        yield
