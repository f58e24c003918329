"""Mean ablation: replace what sites write by its mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from pydantic import JsonValue
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec, neutral_working
from ..model import Edit, Site, Slice, slices
from ..model.anatomy import feature_dim
from ..model.run.lookup import inputs_of
from .common import edit_record, writing_sites

if TYPE_CHECKING:
    from ..model import Model


@accepts_spec
def mean(model: Model, case: Case, sites: Iterable[Site]) -> Edit:
    """Fix the sites' activations at their mean over the case's neutral working text.

    The sites' output weights become zero, and the map's bias absorbs their mean output. This needs output maps with a
    bias (GPT-2, NeoX); other architectures have no weight that can hold a constant. Cost: one forward pass over the
    neutral text.

    Raises:
        UserError: no sites, sites that do not write to the residual stream directly, or maps without a bias.
    """
    texts = neutral_working(model, case)
    return constant(model, case, sites, "mean", {}, lambda modules: _mean(inputs_of(model, modules, texts)))


def constant(
    model: Model,
    case: Case,
    sites: Iterable[Site],
    method: str,
    arguments: Mapping[str, JsonValue],
    activations: Callable[[list[torch.nn.Module]], list[Tensor]],
) -> Edit:
    """Fold fixed activations of sites into biases. `activations` returns each map's input, `[d_in]`."""
    ordered = writing_sites(method, model, sites)
    cut = slices(model, ordered, reads=False)
    names = [where.name.removesuffix(".weight") for where in cut]
    modules = [model.hf.get_submodule(name) for name in names]
    if bare := [n for n, m in zip(names, modules, strict=True) if getattr(m, "bias", None) is None]:
        raise UserError(f"{bare[0]} of {model.name} has no bias, which {method} needs to hold a constant; use zero.")
    weights = [where.read(model.parameters[where.name]) for where in cut]
    biases = [_bias(model, n, w, v, a) for n, w, v, a in zip(names, cut, weights, activations(modules), strict=True)]
    return Edit(
        (*cut, *(Slice(f"{n}.bias", 0, torch.arange(len(b))) for n, b in zip(names, biases, strict=True))),
        (*(torch.zeros_like(v).cpu() for v in weights), *(b.cpu() for b in biases)),
        model.digest(),
        edit_record(method, model, case, ordered, arguments),
    )


def _bias(model: Model, name: str, where: Slice, weights: Tensor, activations: Tensor) -> Tensor:
    """The bias plus the output of the columns for these activations."""
    fixed = activations[where.index.to(activations.device)]
    columns = weights if feature_dim(model.hf.get_submodule(name), out=False) else weights.t()
    return model.parameters[f"{name}.bias"].detach() + columns @ fixed.to(columns)


def _mean(batches: Iterable[list[Tensor]]) -> list[Tensor]:
    """Each map's mean input over all tokens."""
    sums: list[Tensor] = []
    tokens = 0
    for read in batches:
        totals = [x.double().sum(0) for x in read]
        sums = totals if not sums else [a + b for a, b in zip(sums, totals, strict=True)]
        tokens += len(read[0])
    return [total / tokens for total in sums]
