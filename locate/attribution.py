"""Attribution patching: gradient times difference, for all heads and neurons in one sweep.

AtP, Nanda 2023, "Attribution patching"; Kramár et al. 2024, arXiv:2403.00745.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..knowledge import Case
from ..model import Model
from ..model.run.hooks import point, record
from .counterfactual import Pairs, log_odds
from .facts import Scores, over_facts
from .localization import Localization, Part

PARTS: tuple[Part, ...] = ("neuron", "head")


def attribution(
    model: Model,
    case: Case,
    *,
    parts: Sequence[Part] = PARTS,
    rows: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Localization:
    """Score every head and every neuron for what it does for the forget facts beyond the retain facts.

    The score of a site on a fact is its activation on the prompt minus that on the counterfactual
    prompt, times the gradient of the answer's log-odds, summed over positions: to first order, how far
    the log-odds fall when the site is patched from the counterfactual run. Scores are divided by the
    fact's own total fall, so that facts count alike, and the mean over working retain facts of the same
    relation is taken off.

    Args:
        rows: pairs in one batch.
        progress: called with pairs done and pairs in all.

    Cost: two forward passes and one backward pass (no weight gradients) over forget and retain facts;
    memory for the activations of `2 * rows` rows.

    Example:
        found = loka.locate.attribution(model, loka.case("capitals"))
    """
    return over_facts(model, case, partial(attribute, parts=parts), rows=rows, progress=progress, method="attribution")


@torch.enable_grad()
def attribute(model: Model, pairs: Pairs, parts: Sequence[Part] = PARTS) -> tuple[Scores, np.ndarray]:
    """Raw scores `[row, layer, unit]` by part, and each row's fall in log-odds `[row]`."""
    names = points(model, parts)
    other = record(model, pairs.corrupted, names)
    base = record(model, pairs.clean, names, grad=True)
    odds = log_odds(base.logits, pairs)
    grads = torch.autograd.grad(odds.sum(), [base.activations[name] for name in names])
    way = {n: base.activations[n].detach() - other.activations[n] for n in names}
    fall = odds.detach() - log_odds(other.logits, pairs)
    return products(model, parts, way, dict(zip(names, grads, strict=True)), pairs), fall.cpu().double().numpy()


def points(model: Model, parts: Iterable[str]) -> list[str]:
    """The hook points of some parts of all layers."""
    return [point(part, layer) for part in parts for layer in range(model.n_layers)]


def products(
    model: Model, parts: Iterable[str], way: Mapping[str, Tensor], grads: Mapping[str, Tensor], pairs: Pairs
) -> dict[Any, np.ndarray]:
    """Difference times gradient by part, `[row, layer, unit]`.

    Summed over positions that are no padding in either run, and over a head's width.
    """
    seen = (pairs.clean.mask * pairs.corrupted.mask)[..., None]

    def one(name: str) -> np.ndarray:
        product = way[name] * grads[name]
        product = product.sum(-1) if product.ndim == 4 else product
        return (product * seen).sum(1).double().cpu().numpy()

    return {part: np.stack([one(point(part, layer)) for layer in range(model.n_layers)], 1) for part in parts}
