"""The matrices in which an edit may sit: those that an audit names, or else every output map of an MLP."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from .._util.errors import UserError
from ..model import Slice, scratch
from ..model.anatomy import feature_dim
from ..model.layout import head_output, neuron_output

if TYPE_CHECKING:
    from ..model import Model

PARTS = 4  # contiguous groups of layers


def matrices_of(model: Model) -> list[str]:
    """The matrices of a model's blocks, by the names of their parameters, in the model's order."""
    inside = model.block(0).removesuffix("0")
    return [name for name, weight in model.parameters.items() if name.startswith(inside) and weight.ndim > 1]


def candidates(model: Model, edited: Sequence[str]) -> tuple[str, ...]:
    """The edited matrices; every output map of an MLP if none are named, and of an attention if no MLP has one.

    Raises:
        UserError: a name that is not a matrix of the model's blocks.
    """
    there = matrices_of(model)
    if strange := sorted(set(edited) - set(there)):
        raise UserError(f"{strange[0]!r} is not a matrix of a block of {model.name}; give names such as {there[0]!r}.")
    if edited:
        return tuple(name for name in there if name in set(edited))
    return tuple(_mlp_outputs(model) or _attention_outputs(model))


def groups(model: Model, edited: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The candidates in groups, by what a group is: all of them, one kind of map, and contiguous layers of that kind.

    A group that repeats another one is left out. The layers are divided into at most `PARTS` parts.
    """
    names = candidates(model, edited)
    kinds = {"MLP outputs": _mlp_outputs(model), "attention outputs": _attention_outputs(model)}
    found = {"all": names} | {kind: _among(names, of) for kind, of in kinds.items()}
    base = next((found[kind] for kind in kinds if found[kind]), names)
    found |= _windows(model, base)
    distinct: dict[tuple[str, ...], str] = {}
    for what, group in found.items():
        if group:
            distinct.setdefault(group, what)
    return {what: group for group, what in distinct.items()}


def restored(model: Model, names: Sequence[str]) -> AbstractContextManager[Model]:
    """A context after which these matrices are as before it, bit for bit."""
    sizes = {name: model.parameters[name].numel() // model.parameters[name].shape[-1] for name in names}
    return scratch(model, [Slice(name, 0, torch.arange(n)) for name, n in sizes.items()])


def layer_of(model: Model, name: str) -> int:
    """The layer of a matrix, by its name."""
    inside = model.block(0).removesuffix("0")
    return int(name.removeprefix(inside).split(".", 1)[0])


def _among(names: Sequence[str], of: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in of)


def _windows(model: Model, names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The matrices of each contiguous part of the layers that they lie in."""
    layers = sorted({layer_of(model, name) for name in names})
    n = min(PARTS, len(layers))
    for part in range(n):
        own = layers[part * len(layers) // n : (part + 1) * len(layers) // n]
        what = f"layers {own[0]} to {own[-1]}" if len(own) > 1 else f"layer {own[0]}"
        yield what, tuple(name for name in names if layer_of(model, name) in own)


def _mlp_outputs(model: Model) -> list[str]:
    anatomy = model.anatomy
    if not anatomy.down:
        return []
    path = f"{anatomy.experts}.down_proj" if anatomy.experts else f"{anatomy.down}.weight"
    return [f"{model.block(layer)}.{path}" for layer in range(model.n_layers)]


def _attention_outputs(model: Model) -> list[str]:
    return [f"{model.block(layer)}.{model.anatomy.out}.weight" for layer in range(model.n_layers)]


@dataclass(frozen=True)
class OutputMap:
    """A map that writes to the residual stream: of an MLP, whose inputs are neurons, or of an attention.

    `name`: its parameter; `dim`: the axis of its inputs there; `size`: their number; `module`: whose input they are.
    """

    name: str
    dim: int
    size: int
    module: nn.Module


def output_maps(model: Model, edited: Sequence[str]) -> list[OutputMap]:
    """The output maps of the MLPs and of the attentions that a candidate belongs to, in the model's order."""
    found: list[OutputMap] = []
    for layer in sorted({layer_of(model, name) for name in candidates(model, edited)}):
        path = f"{model.block(layer)}."
        own = [name.removeprefix(path) for name in candidates(model, edited) if name.startswith(path)]
        inside = {name.startswith(f"{model.anatomy.attention}.") for name in own}
        if True in inside or not model.anatomy.down:
            module = head_output(model, layer)
            dim, size = feature_dim(module, out=False), model.n_heads * model.d_head
            found.append(OutputMap(_attention_outputs(model)[layer], dim, size, module))
        if False in inside and model.anatomy.down:
            module = neuron_output(model, layer)
            dim = 1 if model.anatomy.experts else feature_dim(module, out=False)
            found.append(OutputMap(_mlp_outputs(model)[layer], dim, model.n_neurons, module))
    return found
