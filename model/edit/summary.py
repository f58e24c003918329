"""A summary of what an edit changes, with proof that it changes nothing else."""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .applied import Applied
from .content import EditContent

if TYPE_CHECKING:
    from ..load import Model


@dataclass(frozen=True)
class EditSummary:
    """The effect of an edit on a model's weights.

    `parameters`: how many numbers it changes; `share`: their share of all the model's numbers; `norms`: the Euclidean
    norm of the change by parameter; `layers`: the same by layer, with the key `None` for what is outside the blocks;
    `untouched`: SHA-256 over every number that the edit does not address, before it and with it in place.
    """

    parameters: int
    share: float
    norms: dict[str, float]
    layers: dict[int | None, float]
    untouched: tuple[str, str]

    @property
    def nothing_else(self) -> bool:
        """Whether all other numbers are the same bit for bit."""
        return self.untouched[0] == self.untouched[1]

    def __str__(self) -> str:
        where = ", ".join(f"{'outside' if i is None else f'L{i}'} {norm:.3g}" for i, norm in self.layers.items())
        proof = "unchanged, SHA-256 " + self.untouched[0][:12] if self.nothing_else else "CHANGED"
        return (
            f"{self.parameters:,} numbers, {self.share:.3%} of the model; norm of the change by layer: {where}; "
            f"everything else: {proof}."
        )


def summarize(edit: EditContent, model: Model) -> EditSummary:
    """Apply an edit, compare, and remove it. Memory: a copy of the parameters that it changes."""
    names = edit.names
    before = {name: model.parameters[name].detach().clone() for name in names}
    first = untouched(edit, model)
    with Applied(edit, model):
        norms = {name: float((model.parameters[name].detach() - before[name]).norm()) for name in names}
        second = untouched(edit, model)
    squares: dict[int | None, float] = defaultdict(float)
    for name, norm in norms.items():
        squares[_layer(model, name)] += norm**2
    order = sorted(squares, key=lambda layer: (layer is None, layer))
    layers = {layer: math.sqrt(squares[layer]) for layer in order}
    return EditSummary(edit.parameters, edit.share(model), norms, layers, (first, second))


def untouched(edit: EditContent, model: Model) -> str:
    """SHA-256 over the names and bytes of all parameters, with zeros where the edit's slices and factors are."""
    total, whole, touched = hashlib.sha256(), {f.name for f in edit.factors}, set(edit.names)
    for name, parameter in model.parameters.items():
        total.update(f"{name} {tuple(parameter.shape)}".encode())
        if name in whole:
            continue
        values = parameter.detach()
        if name in touched:
            values = values.clone()
            for where in edit.slices:
                if where.name == name:
                    where.write_(values, torch.zeros_like(where.read(values)))
        total.update(_bytes(values))
    return total.hexdigest()


def _bytes(values: Tensor) -> memoryview:
    return values.cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _layer(model: Model, name: str) -> int | None:
    found = re.match(re.escape(model.block(0).removesuffix("0")) + r"(\d+)\.", name)
    return int(found[1]) if found else None
