"""Zero-ablation: cut what the sites write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Edit, Site, slices

if TYPE_CHECKING:
    from ..model import Model


def zero(model: Model, case: Case, sites: Iterable[Site]) -> Edit:
    """Zero the weights by which the sites write to the residual stream: the same as zeroing their activation.

    A neuron's down column and a head's output columns become zero; for a key/value group, which writes
    nothing itself, its key and value rows. Costs no forward pass.

    Raises:
        UserError: no sites, or sites that the model does not have.
    """
    chosen = sorted(set(sites))
    if not chosen:
        raise UserError("zero needs at least one site; take them from a localization's `top`.")
    groups = [s for s in chosen if s.part == "kv"]
    cut = slices(model, [s for s in chosen if s.part != "kv"], reads=False) + slices(model, groups)
    values = tuple(torch.zeros_like(where.read(model.parameters[where.name])).cpu() for where in cut)
    about = {
        "method": "zero",
        "case": case.name,
        "model": model.name,
        "sites": [str(s) for s in chosen],
        "arguments": {},
    }
    return Edit(tuple(cut), values, model.digest(), about)
