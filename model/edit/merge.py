"""Several edits as one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import UserError
from ..layout import Slice
from .edit import Edit
from .factors import Factors
from .record import EditRecord

if TYPE_CHECKING:
    from ..load import Model


def merge(model: Model, edits: Sequence[Edit]) -> Edit:
    """One edit that gives, bit for bit, the same weights as applying the edits one after another.

    Each edit must have been made on those before it, or share no weight with them. Where one edit alone changes a
    parameter, the merged edit holds that change. Where several do, it holds the union of their rows and columns, or the
    whole parameter if one of them is a low-rank change. Cost: no forward pass.

    Raises:
        UserError: no edits, the same edit twice, or edits that cannot be applied one after another.

    Example:
        both = loka.merge(model, [loka.Edit.load("a.safetensors"), loka.Edit.load("b.safetensors")])
        both.save("both.safetensors")
    """
    if not edits:
        raise UserError("there is nothing to merge; give at least one edit.")
    made_for, parts, factors = model.digest(), list[tuple[Slice, Tensor]](), list[Factors]()
    with ExitStack() as stack:
        for edit in edits:
            stack.enter_context(edit.applied(model))
        for name in dict.fromkeys(name for edit in edits for name in edit.names):
            owners = [edit for edit in edits if name in edit.names]
            if len(owners) == 1:
                pairs = zip(owners[0].slices, owners[0].values, strict=True)
                parts += [(where, values) for where, values in pairs if where.name == name]
                factors += [f for f in owners[0].factors if f.name == name]
            else:
                parts += [(w, w.read(model.parameters[name]).cpu()) for w in _union(model, name, owners)]
    record = EditRecord("merge", model.name, sites=(), edits=tuple(edit.record for edit in edits))
    return Edit(tuple(w for w, _ in parts), tuple(v for _, v in parts), made_for, record, tuple(factors))


def _union(model: Model, name: str, edits: Sequence[Edit]) -> list[Slice]:
    """All rows and columns of a parameter that some edit changes."""
    if any(f.name == name for edit in edits for f in edit.factors):
        return [Slice(name, 0, torch.arange(len(model.parameters[name])))]
    every = [s for edit in edits for s in edit.slices if s.name == name]
    index = {dim: {i for s in every if s.dim == dim for i in s.index.tolist()} for dim in (0, 1)}
    return [Slice(name, dim, torch.tensor(sorted(numbers))) for dim, numbers in index.items() if numbers]
