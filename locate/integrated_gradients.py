"""Integrated gradients on the inputs, for all heads and neurons.

Sundararajan et al. 2017, arXiv:1703.01365. As in EAP-IG, Hanna et al. 2024, arXiv:2403.17806, the path runs between
the embeddings of two prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from ..knowledge import Case, accepts_spec
from ..model import Model
from ..model.run.hooks import point, record
from .attribution import PARTS, gradient_products, hook_points
from .contrast import Progress, Scores, contrast_items
from .counterfactual import Pairs, log_odds
from .integration import integration_points, interpolate
from .localization import Localization, Part

STEPS = 5


@accepts_spec
def integrated_gradients(
    model: Model,
    case: Case,
    *,
    parts: Sequence[Part] = PARTS,
    steps: int = STEPS,
    rows: int = 16,
    progress: Progress | None = None,
) -> Localization:
    """Score like `attribution`, with gradients averaged on the path from the counterfactual to the clean prompt.

    The path is a straight line between the tokens' embeddings, sampled by the midpoint rule. A site that saturates
    at the clean prompt, where its gradient vanishes, still shows its effect along the path.

    Args:
        parts: as for `attribution`.
        steps: points on the path.
        rows: pairs in one batch.
        progress: called with the number of pairs done and the number of all pairs.

    Raises:
        UserError: fewer than one step, or a part without activations of its own.

    Cost: two forward passes, and `steps` forward and backward passes, over forget and retain facts.
    """
    scorer, settings = partial(integrated_gradients_scores, parts=parts, steps=steps), {"steps": steps}
    return contrast_items(
        model, case, scorer, method="integrated_gradients", rows=rows, settings=settings, progress=progress
    )


@torch.enable_grad()
def integrated_gradients_scores(
    model: Model, pairs: Pairs, parts: Sequence[Part] = PARTS, *, steps: int = STEPS
) -> tuple[Scores, np.ndarray]:
    """Raw scores `[row, layer, unit]` by part, and each row's fall in log-odds, `[row]`."""
    names, embed = hook_points(model, parts), point("embed")
    clean, other = (record(model, batch, [*names, embed]) for batch in (pairs.clean, pairs.corrupted))
    mask = pairs.clean.mask * pairs.corrupted.mask
    exact = torch.promote_types(model.dtype, torch.float32)
    grads = {name: torch.zeros_like(clean.activations[name], dtype=exact) for name in names}
    for share in integration_points(steps):
        hook = interpolate(clean.activations[embed], other.activations[embed], mask, share)
        run = record(model, pairs.clean, names, grad=True, hooks=[(embed, hook)])
        found = torch.autograd.grad(log_odds(run.logits, pairs).sum(), [run.activations[name] for name in names])
        for name, grad in zip(names, found, strict=True):
            grads[name] += grad / steps
    change = {name: clean.activations[name] - other.activations[name] for name in names}
    fall = log_odds(clean.logits, pairs) - log_odds(other.logits, pairs)
    return gradient_products(model, parts, change, grads, pairs), fall.double().cpu().numpy()
