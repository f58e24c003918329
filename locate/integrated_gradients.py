"""Integrated gradients on the inputs, for all heads and neurons.

Sundararajan et al. 2017, arXiv:1703.01365; on the way between two prompts' embeddings as in EAP-IG,
Hanna et al. 2024, arXiv:2403.17806.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from ..knowledge import Case
from ..model import Model
from ..model.run.hooks import point, record
from .attribution import PARTS, points, products
from .counterfactual import Pairs, log_odds
from .facts import Scores, over_facts
from .localization import Localization, Part
from .path import between, grid

STEPS = 5


def integrated_gradients(
    model: Model,
    case: Case,
    *,
    parts: Sequence[Part] = PARTS,
    steps: int = STEPS,
    rows: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Localization:
    """Like `attribution`, with the gradient averaged on the way from the counterfactual to the clean prompt.

    The way is straight between the tokens' embeddings, its points those of the midpoint rule. What is
    saturated at the clean prompt, where the gradient vanishes, is seen on the way.

    Args:
        steps: points on the way.
        rows: pairs in one batch.
        progress: called with pairs done and pairs in all.

    Cost: two forward passes, and `steps` forward and backward passes, over forget and retain facts.

    Raises:
        UserError: fewer than one step.
    """
    raw = partial(integrate, parts=parts, steps=steps)
    return over_facts(model, case, raw, rows=rows, progress=progress, method="integrated_gradients", steps=steps)


@torch.enable_grad()
def integrate(
    model: Model, pairs: Pairs, parts: Sequence[Part] = PARTS, *, steps: int = STEPS
) -> tuple[Scores, np.ndarray]:
    """Raw scores `[row, layer, unit]` by part, and each row's fall in log-odds `[row]`."""
    names, embed = points(model, parts), point("embed")
    clean, other = (record(model, batch, [*names, embed]) for batch in (pairs.clean, pairs.corrupted))
    seen = pairs.clean.mask * pairs.corrupted.mask
    grads = {name: torch.zeros_like(clean.activations[name]) for name in names}
    for share in grid(steps):
        hook = between(clean.activations[embed], other.activations[embed], seen, share)
        run = record(model, pairs.clean, names, grad=True, hooks=[(embed, hook)])
        found = torch.autograd.grad(log_odds(run.logits, pairs).sum(), [run.activations[name] for name in names])
        for name, grad in zip(names, found, strict=True):
            grads[name] += grad / steps
    way = {name: clean.activations[name] - other.activations[name] for name in names}
    fall = log_odds(clean.logits, pairs) - log_odds(other.logits, pairs)
    return products(model, parts, way, grads, pairs), fall.double().cpu().numpy()
