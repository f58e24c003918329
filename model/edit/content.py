"""The content of an edit, separate from how it is applied, summarised and saved."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import UserError
from ..layout import Slice
from .factors import Factors
from .record import EditRecord

if TYPE_CHECKING:
    from ..load import Model


@dataclass(frozen=True, eq=False)
class EditContent:
    """New values for some rows and columns of a model's weights, and low-rank changes to whole matrices.

    `slices[i]` says where, `values[i]` what: shaped like the parameter, but as long as the slice's index on its axis.
    `factors` are added to their matrices before the slices are written. `made_for` is the digest of the weights that
    the edit was made for. `record` says how it was made.
    """

    slices: tuple[Slice, ...]
    values: tuple[Tensor, ...]
    made_for: str
    record: EditRecord = field(default_factory=EditRecord)
    factors: tuple[Factors, ...] = ()

    @property
    def parameters(self) -> int:
        """How many numbers it changes. One in both a row and a column counts once; factors count their whole matrix."""
        whole = {f.name: math.prod(f.shape) for f in self.factors}
        return sum((whole | {n: _cells(g) for n, g in self._by_name().items() if n not in whole}).values())

    @property
    def names(self) -> list[str]:
        """The parameters that it changes."""
        return list(dict.fromkeys(part.name for part in (*self.factors, *self.slices)))

    def digest(self) -> str:
        """SHA-256 of its slices, values and factors."""
        total = hashlib.sha256(self.made_for.encode())
        for where, values in zip(self.slices, self.values, strict=True):
            total.update(f"{where.name} {where.dim}".encode())
            total.update(where.index.numpy().tobytes())
            total.update(_bytes(values))
        for factors in self.factors:
            total.update(f"{factors.name} {tuple(factors.left.shape)}".encode())
            total.update(_bytes(factors.left) + _bytes(factors.right))
        return total.hexdigest()

    def share(self, model: Model) -> float:
        """`parameters` as a share of all parameters of the model."""
        return self.parameters / model.n_parameters

    def meets(self, other: EditContent) -> list[str]:
        """The parameters in which both change the same numbers. If there are none, the order does not matter."""
        return [name for name in self.names if _cross(self._reach(name), other._reach(name))]

    def check(self, model: Model) -> None:
        """Raise `UserError` unless the model has every number that the edit changes."""
        for part in (*self.slices, *self.factors):
            if part.name not in model.parameters:
                raise UserError(f"the edit changes {part.name}, which {model.name} does not have; load its own model.")
        for factors in self.factors:
            factors.check(model.parameters[factors.name])
        for where, values in zip(self.slices, self.values, strict=True):
            where.check(model.parameters[where.name], values)

    def write_(self, model: Model) -> Model:
        """Write the changes without a check of the weights; `Edit.applied` and `Edit.apply_` check first."""
        for factors in self.factors:
            factors.add_(model.parameters[factors.name])
        for where, values in zip(self.slices, self.values, strict=True):
            where.write_(model.parameters[where.name], values)
        return model

    def in_place(self, model: Model) -> bool:
        """Whether its slices hold their new values. Always false for edits with factors, which cannot be detected."""
        if not self.slices or self.factors:
            return False
        pairs = [(model.parameters[s.name], s, v) for s, v in zip(self.slices, self.values, strict=True)]
        return all(torch.equal(where.read(p), values.to(model.device, p.dtype)) for p, where, values in pairs)

    def _by_name(self) -> dict[str, list[tuple[Slice, Tensor]]]:
        groups: dict[str, list[tuple[Slice, Tensor]]] = defaultdict(list)
        for where, values in zip(self.slices, self.values, strict=True):
            groups[where.name].append((where, values))
        return groups

    def _reach(self, name: str) -> tuple[set[int], set[int], bool]:
        """The rows and the columns of a parameter that it changes, and whether it changes all of it."""
        rows, columns = (
            {i for s in self.slices if (s.name, s.dim) == (name, d) for i in s.index.tolist()} for d in (0, 1)
        )
        return rows, columns, any(f.name == name for f in self.factors)


def _cross(a: tuple[set[int], set[int], bool], b: tuple[set[int], set[int], bool]) -> bool:
    """Whether two reaches have a number in common: every row crosses every column."""
    if a[2] or b[2]:
        return all(any(reach) for reach in (a, b))
    return bool(a[0] & b[0] or a[1] & b[1] or (a[0] and b[1]) or (a[1] and b[0]))


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _cells(group: list[tuple[Slice, Tensor]]) -> int:
    """The number of entries in some rows and columns of one matrix; where they cross, an entry counts once."""
    rows = [(s, v) for s, v in group if s.dim == 0]
    columns = [(s, v) for s, v in group if s.dim == 1]
    crossings = sum(len(r.index) for r, _ in rows) * sum(len(c.index) for c, _ in columns)
    return sum(v.numel() for _, v in group) - crossings
