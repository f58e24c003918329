"""Run a model one block at a time, on one prompt and on rows that depart from it.

The blocks are called as the model itself calls them: their arguments (mask, rotary angles) are taken
from the model's own forward pass, and the last norm and the unembedding are run by it too. So what an
architecture does beside and behind its blocks (sliding windows, norms after a block, soft caps, scaled
logits) is done here as there.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
    """Keys and values of the positions before those being run, `[1 or row, group, position, d_head]`.

    Blocks take it for a cache; after a run it holds the new ones too.
    """

    keys: Tensor | None = None
    values: Tensor | None = None

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        self.keys, self.values = _behind(self.keys, keys), _behind(self.values, values)
        return self.keys, self.values

    def before(self, position: int) -> Past:
        """Those before a position, apart from these."""
        if not position or self.keys is None or self.values is None:
            return Past()
        return Past(self.keys[:, :, :position], self.values[:, :, :position])


@dataclass(frozen=True)
class BlockRunner:
    """A model made ready to run on one prompt without padding.

    `embedded`: `[1, position, d_model]`, what enters the first block; `arguments`: what else each block
    is given; `tupled`: whether blocks give their output in a tuple.
    """

    model: Model
    embedded: Tensor
    arguments: tuple[dict[str, Any], ...]
    tupled: bool

    @property
    def length(self) -> int:
        """How many positions the prompt has."""
        return self.embedded.shape[1]

    def block(
        self, layer: int, rows: Tensor, start: int, past: Past, *, attn: Tensor | None = None, mlp: Tensor | None = None
    ) -> Tensor:
        """What leaves a block, `[row, position, d_model]`.

        Args:
            rows: what enters it from position `start` on.
            past: keys and values of this layer before it.
            attn: what attention gives, instead of running it.
            mlp: what the MLP gives, instead of running it.
        """
        hf, stop = self.model.hf, start + rows.shape[1]
        given = {name: _cut(name, value, start, stop) for name, value in self.arguments[layer].items()}
        given |= {name: past for name in _PAST if name in given}
        with ExitStack() as stack:
            if attn is not None:
                stack.enter_context(_giving(attention(self.model, layer), (attn, None)))
            if mlp is not None:
                stack.enter_context(_giving(_mlp(self.model, layer), mlp))
            return first_tensor(hf.get_submodule(self.model.block(layer))(rows, **given))

    def ending(self, layer: int, rows: Tensor, start: int, past: Past, keep: int) -> Tensor:
        """The same at the last `keep` positions alone; of the others only keys and values are worked out."""
        early = rows[:, :-keep]
        if early.shape[1]:
            past = _Projected(past.keys, past.values)
            try:
                self.block(layer, early, start, past)
            except _Projected.Done:
                past = Past(past.keys, past.values)
        return self.block(layer, rows[:, -keep:], start + early.shape[1], past)

    def logits(self, rows: Tensor) -> Tensor:
        """`[row, position, vocabulary]` of what left the last block `[row, position, d_model]`."""
        with ExitStack() as stack:
            for block in _blocks(self.model):
                stack.enter_context(_giving(block, (rows,) if self.tupled else rows))
            ids = torch.zeros(rows.shape[:2], dtype=torch.long, device=rows.device)
            return self.model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits


def begin(model: Model, ids: Tensor) -> BlockRunner:
    """Have the model prepare a run on one prompt's tokens `[position]`; of its blocks only the first is run."""
    blocks = _blocks(model)
    first, calls, kinds = blocks[0].forward, [], []

    def call(*args: Any, **kwargs: Any) -> Any:
        if not calls:
            kinds.append(isinstance(first(*args, **kwargs), tuple))
        calls.append((args, kwargs))
        return (args[0],) if kinds[0] else args[0]

    with ExitStack() as stack:
        stack.enter_context(use_attention(model, "eager"))  # it writes out the mask that others leave implicit
        for block in blocks:
            stack.enter_context(replaced_forward(block, call))
        mask = torch.ones_like(ids[None])
        model.hf(input_ids=ids[None], attention_mask=mask, use_cache=False, logits_to_keep=1)
    arguments = [_named(block, *given) for block, given in zip(blocks, calls, strict=True)]
    return BlockRunner(model, calls[0][0][0], tuple(arguments), kinds[0])


@contextmanager
def use_attention(model: Model, implementation: str | None = None) -> Iterator[None]:
    """Another implementation of attention; without a name, eager where the model's own takes no written mask."""
    config = model.hf.config
    own = config._attn_implementation
    config._attn_implementation = implementation or (own if own in ("eager", "sdpa") else "eager")
    try:
        yield
    finally:
        config._attn_implementation = own


class _Projected(Past):
    """Stops a block when it has its keys and values."""

    class Done(Exception):
        pass

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        super().update(keys, values)
        raise self.Done


def _behind(old: Tensor | None, new: Tensor) -> Tensor:
    return new if old is None else torch.cat([old.expand(len(new), -1, -1, -1), new], 2)


def _cut(name: str, value: Any, start: int, stop: int) -> Any:
    """A block's argument for the positions from `start` to `stop`."""
    if name == "attention_mask":
        return value[..., start:stop, :stop]
    if name == "position_embeddings":
        return tuple(angles[:, start:stop] for angles in value)
    if name == "position_ids":
        return value[:, start:stop]
    return value[start:stop] if name == "cache_position" else value


def _named(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a block but the stream, by name."""
    given = inspect.signature(type(block).forward).bind(block, *args, **kwargs)
    extra = next((p.name for p in given.signature.parameters.values() if p.kind is p.VAR_KEYWORD), "")
    names = list(given.arguments)[2:]
    named = {name: given.arguments[name] for name in names if name != extra} | given.arguments.get(extra, {})
    own = [name for name in _PAST if name in given.signature.parameters]
    return {name: value for name, value in named.items() if value is not None} | dict.fromkeys(own)


def _giving(module: nn.Module, value: Any) -> Any:
    return replaced_forward(module, lambda *_, **__: value)


def _blocks(model: Model) -> list[nn.Module]:
    return [model.hf.get_submodule(model.block(layer)) for layer in range(model.n_layers)]


_mlp = mlp  # within a method `mlp` is an argument
