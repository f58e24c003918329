"""Run a model one block at a time, on one prompt and on rows that differ from it.

The blocks get the arguments (mask, rotary angles) that the model's own forward pass gives them, and the model itself
runs the last norm and the unembedding. Sliding windows, norms after a block, soft caps and scaled logits therefore act
as they do in the architecture.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..layout import attention, mlp
from .modules import first_tensor, replaced_forward

if TYPE_CHECKING:
    from ..load import Model

_PAST = ("past_key_values", "layer_past")


@dataclass
class Past:
    """Keys and values of earlier positions, `[1 or row, group, position, d_head]`.

    Blocks use it as a cache, and a run adds its own keys and values.
    """

    keys: Tensor | None = None
    values: Tensor | None = None

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        self.keys, self.values = _append(self.keys, keys), _append(self.values, values)
        return self.keys, self.values

    def before(self, position: int) -> Past:
        """A separate cache with the positions before this one."""
        if not position or self.keys is None or self.values is None:
            return Past()
        return Past(self.keys[:, :, :position], self.values[:, :, :position])


@dataclass(frozen=True)
class BlockRunner:
    """A model that is ready to run on one prompt without padding.

    `embedded`: `[1, position, d_model]`, the input of the first block; `arguments`: the other arguments of each block;
    `tupled`: whether blocks return their output in a tuple.
    """

    model: Model
    embedded: Tensor
    arguments: tuple[dict[str, Any], ...]
    tupled: bool

    @property
    def length(self) -> int:
        """The number of the prompt's positions."""
        return self.embedded.shape[1]

    def block(
        self, layer: int, rows: Tensor, start: int, past: Past, *, attn: Tensor | None = None, mlp: Tensor | None = None
    ) -> Tensor:
        """The output of a block, `[row, position, d_model]`.

        Args:
            rows: its input from position `start` on.
            past: this layer's keys and values before `start`.
            attn: the output of its attention, which then does not run.
            mlp: the output of its MLP, which then does not run.
        """
        hf, stop = self.model.hf, start + rows.shape[1]
        given = {name: _cut(name, value, start, stop, len(rows)) for name, value in self.arguments[layer].items()}
        given |= {name: past for name in _PAST if name in given}
        with ExitStack() as stack:
            if attn is not None:
                stack.enter_context(_constant_output(attention(self.model, layer), (attn, None)))
            if mlp is not None:
                # OPT's MLP sees positions without rows, so the output takes the shape of the input
                put = partial(_shaped_output, mlp)
                stack.enter_context(replaced_forward(_mlp(self.model, layer), put))
            return first_tensor(hf.get_submodule(self.model.block(layer))(rows, **given))

    def ending(self, layer: int, rows: Tensor, start: int, past: Past, keep: int) -> Tensor:
        """`block` at the last `keep` positions alone. Of the others, only keys and values are computed."""
        early = rows[:, :-keep]
        if early.shape[1]:
            past = _Projected(past.keys, past.values)
            try:
                self.block(layer, early, start, past)
            except _Projected.Done:
                past = Past(past.keys, past.values)
        return self.block(layer, rows[:, -keep:], start + early.shape[1], past)

    def logits(self, rows: Tensor) -> Tensor:
        """Logits `[row, position, vocabulary]` of the last block's output `[row, position, d_model]`."""
        with ExitStack() as stack:
            for block in _blocks(self.model):
                stack.enter_context(_constant_output(block, (rows,) if self.tupled else rows))
            ids = torch.zeros(rows.shape[:2], dtype=torch.long, device=rows.device)
            return self.model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits


def begin(model: Model, ids: Tensor) -> BlockRunner:
    """Prepare a run on one prompt's tokens `[position]`. Cost: the first block alone."""
    blocks = _blocks(model)
    first, calls, kinds = blocks[0].forward, [], []

    def call(*args: Any, **kwargs: Any) -> Any:
        if not calls:
            kinds.append(isinstance(first(*args, **kwargs), tuple))
        calls.append((args, kwargs))
        return (args[0],) if kinds[0] else args[0]

    with ExitStack() as stack:
        stack.enter_context(use_attention(model, "eager"))  # its mask is an explicit tensor
        for block in blocks:
            stack.enter_context(replaced_forward(block, call))
        mask = torch.ones_like(ids[None])
        model.hf(input_ids=ids[None], attention_mask=mask, use_cache=False, logits_to_keep=1)
    arguments = [_arguments(block, *given) for block, given in zip(blocks, calls, strict=True)]
    return BlockRunner(model, calls[0][0][0], tuple(arguments), kinds[0])


@contextmanager
def use_attention(model: Model, implementation: str | None = None) -> Iterator[None]:
    """Use this attention; by default the model's own if it accepts an explicit mask, else eager attention."""
    config = model.hf.config
    before = config._attn_implementation
    config._attn_implementation = implementation or (before if before in ("eager", "sdpa") else "eager")
    try:
        yield
    finally:
        config._attn_implementation = before


class _Projected(Past):
    """A cache that stops the block once it has the block's keys and values."""

    class Done(Exception):
        pass

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        super().update(keys, values)
        raise self.Done


def _append(old: Tensor | None, new: Tensor) -> Tensor:
    return new if old is None else torch.cat([old.expand(len(new), -1, -1, -1), new], 2)


def _cut(name: str, value: Any, start: int, stop: int, rows: int) -> Any:
    """A block's argument for the positions from `start` to `stop` of some rows."""
    if value is None:
        return None
    if name == "alibi":  # a head's slopes, row by row
        return value[..., :stop].repeat(rows, *[1] * (value.ndim - 1))
    if name == "attention_mask":
        return value[..., start:stop, :stop]
    if name == "position_embeddings":
        return tuple(angles[:, start:stop] for angles in value)
    if name == "position_ids":
        return value[:, start:stop]
    return value[start:stop] if name == "cache_position" else value


def _arguments(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a block but its input, by name."""
    given = inspect.signature(type(block).forward).bind(block, *args, **kwargs)
    extra = next((p.name for p in given.signature.parameters.values() if p.kind is p.VAR_KEYWORD), "")
    names = list(given.arguments)[2:]
    named = {name: given.arguments[name] for name in names if name != extra} | given.arguments.get(extra, {})
    past = [name for name in _PAST if name in given.signature.parameters]
    needed = {name for name, p in given.signature.parameters.items() if p.default is p.empty}
    return {n: value for n, value in named.items() if value is not None or n in needed} | dict.fromkeys(past)


def _constant_output(module: nn.Module, value: Any) -> Any:
    return replaced_forward(module, lambda *_, **__: value)


def _shaped_output(value: Tensor, given: Tensor, *_: Any, **__: Any) -> Tensor:
    return value.reshape(*given.shape[:-1], value.shape[-1])


def _blocks(model: Model) -> list[nn.Module]:
    return [model.hf.get_submodule(model.block(layer)) for layer in range(model.n_layers)]


_mlp = mlp  # inside a method, `mlp` is an argument
