"""The matrices that an edit changed, for the checks that need to know them."""

from __future__ import annotations

import torch

from ..model import Edit, Model
from ..verify.edited import matrices_of


def edited_matrices(before: Model, after: Edit | Model) -> tuple[str, ...]:
    """The matrices of the blocks that differ between the original and the edited model, in the model's order.

    Those that an edit writes to, or those of two models that are not the same bit for bit.
    """
    names = matrices_of(before)
    if isinstance(after, Edit):
        return tuple(name for name in names if name in after.names)
    return tuple(n for n in names if not torch.equal(before.parameters[n], after.parameters[n].to(before.device)))
