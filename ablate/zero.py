"""Zero ablation: remove what the sites write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from .._util.errors import UserError
from ..knowledge import Case, CaseSpec, check_case
from ..model import Edit, Site, slices
from .common import edit_record

if TYPE_CHECKING:
    from ..model import Model


def zero(model: Model, case: Case | CaseSpec, sites: Iterable[Site]) -> Edit:
    """Zero the weights with which the sites write to the residual stream, as if their activations were zero.

    A neuron's down column and a head's output columns become zero. A key/value group does not write to the residual
    stream directly, so its key and value rows become zero. Cost: no forward pass.

    Raises:
        UserError: no sites, or sites that the model does not have.
    """
    check_case(case)
    ordered = sorted(set(sites))
    if not ordered:
        raise UserError("zero needs at least one site; take them from a localization's `top`.")
    groups = [s for s in ordered if s.part == "kv"]
    cut = slices(model, [s for s in ordered if s.part != "kv"], reads=False) + slices(model, groups)
    values = tuple(torch.zeros_like(where.read(model.parameters[where.name])).cpu() for where in cut)
    return Edit(tuple(cut), values, model.digest(), edit_record("zero", model, case, ordered, {}))
