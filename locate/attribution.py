"""Attribution patching: gradient times difference, for all heads and neurons in one sweep.

AtP, Nanda 2023, "Attribution patching"; Kramár et al. 2024, arXiv:2403.00745.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..knowledge import Case
from ..model import Model
from ..model.hooks import point, record
from .counterfactual import Pairs, log_odds
from .facts import over_facts
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
def attribute(model: Model, pairs: Pairs, parts: Sequence[Part] = PARTS) -> tuple[dict[Part, np.ndarray], np.ndarray]:
    """Raw scores `[row, layer, unit]` by part, and each row's fall in log-odds `[row]`."""
    names = {part: [point(part, layer) for layer in range(model.n_layers)] for part in parts}
    flat = [name for part in parts for name in names[part]]
    other = record(model, pairs.corrupted, flat)
    base = record(model, pairs.clean, flat, grad=True)
    odds = log_odds(base.logits, pairs)
    acts = [base.activations[name] for name in flat]
    grads = dict(zip(flat, torch.autograd.grad(odds.sum(), acts), strict=True))
    seen = (pairs.clean.mask * pairs.corrupted.mask).to(base.logits.dtype)
    scores: dict[Part, np.ndarray] = {
        part: np.stack(
            [summed(part, base.activations[n].detach() - other.activations[n], grads[n], seen) for n in names[part]],
            axis=1,
        )
        for part in parts
    }
    fall = odds.detach() - log_odds(other.logits, pairs)
    return scores, fall.cpu().double().numpy()


def summed(part: Part, difference: Tensor, grad: Tensor, seen: Tensor) -> np.ndarray:
    """Sum over positions that are no padding in either run, and over a head's width."""
    product = difference * grad
    if part == "head":
        product = product.sum(-1)
    return (product * seen[..., None]).sum(1).double().cpu().numpy()
