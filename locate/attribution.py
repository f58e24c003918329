"""Attribution patching: gradient times difference, for all heads and neurons in one sweep.

AtP, Nanda 2023, "Attribution patching"; Kramár et al. 2024, arXiv:2403.00745.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..knowledge import Case, accepts_spec
from ..model import INDEXED, Model
from ..model.run.hooks import point, record
from .contrast import Progress, Scores, contrast_items
from .counterfactual import Pairs, log_odds
from .localization import Localization, Part

P = TypeVar("P", bound=str)
PARTS: tuple[Part, ...] = ("neuron", "head")
RECORDED: tuple[Part, ...] = ("neuron", "head", "attn", "mlp", "q", "k", "v")


@accepts_spec
def attribution(
    model: Model,
    case: Case,
    *,
    parts: Sequence[Part] = PARTS,
    rows: int = 16,
    progress: Progress | None = None,
) -> Localization:
    """Score every head and neuron by its effect on the forget facts beyond its effect on the retain facts.

    A site's score on a fact is the difference between its activations on the prompt and on the counterfactual
    prompt, times the gradient of the answer's log-odds, summed over positions. To first order, this is how far the
    log-odds fall when the site is patched from the counterfactual run. Each fact's scores are divided by its own
    total fall, so that all facts count equally. The mean over working retain facts of the same relation is subtracted.

    Args:
        parts: of `neuron`, `head`, `attn`, `mlp`, `q`, `k` and `v`.
        rows: pairs in one batch.
        progress: called with the number of pairs done and the number of all pairs.

    Raises:
        UserError: a part without activations of its own.

    Cost: two forward passes and one backward pass (no weight gradients) over forget and retain facts; memory for
    the activations of `2 * rows` rows.

    Example:
        found = loka.locate.attribution(model, loka.case("capitals"))
    """
    scorer = partial(attribution_scores, parts=parts)
    return contrast_items(model, case, scorer, method="attribution", rows=rows, progress=progress)


@torch.enable_grad()
def attribution_scores(model: Model, pairs: Pairs, parts: Sequence[Part] = PARTS) -> tuple[Scores, np.ndarray]:
    """Raw scores `[row, layer, unit]` by part, and each row's fall in log-odds, `[row]`."""
    names = hook_points(model, parts)
    other = record(model, pairs.corrupted, names)
    base = record(model, pairs.clean, names, grad=True)
    odds = log_odds(base.logits, pairs)
    grads = dict(zip(names, torch.autograd.grad(odds.sum(), [base.activations[n] for n in names]), strict=True))
    change = {n: base.activations[n].detach() - other.activations[n] for n in names}
    fall = odds.detach() - log_odds(other.logits, pairs)
    return gradient_products(model, parts, change, grads, pairs), fall.cpu().double().numpy()


def hook_points(model: Model, parts: Iterable[str]) -> list[str]:
    """The hook points of these parts in all layers.

    Raises:
        UserError: a part without a hook point of its own, or one that the model does not have.
    """
    parts = list(parts)
    for part in parts:
        model.units(part)
    return [point(part, layer) for part in parts for layer in range(model.n_layers)]


def gradient_products(
    model: Model, parts: Iterable[P], change: Mapping[str, Tensor], grads: Mapping[str, Tensor], pairs: Pairs
) -> dict[P, np.ndarray]:
    """Change times gradient, `[row, layer, unit]` by part.

    Summed over the positions that are not padding in either run, and over the width of a head or of a whole module.
    """
    valid = (pairs.clean.mask * pairs.corrupted.mask)[..., None]
    exact = torch.promote_types(model.dtype, torch.float32)

    def one(part: str, layer: int) -> np.ndarray:
        product = change[point(part, layer)].to(exact) * grads[point(part, layer)]
        if product.ndim == 4 or part not in INDEXED:
            product = product.sum(-1, keepdim=product.ndim == 3)
        return (product * valid).sum(1).double().cpu().numpy()

    return {part: np.stack([one(part, layer) for layer in range(model.n_layers)], 1) for part in parts}
