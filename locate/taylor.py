"""Taylor importance: gradient times activation, the first-order effect of zeroing a site.

Molchanov et al. 2017, arXiv:1611.06440, use it on a loss, for pruning. Pochinkov & Schoots 2024, arXiv:2403.01267, make
it selective for what is to be forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Model
from ..model.run.hooks import record
from .attribution import PARTS, gradient_products, hook_points
from .contrast import Progress, Scores, contrast_items
from .counterfactual import Pairs, log_odds
from .localization import Localization, Part

SPARE = 5.0
UNIT = "nats of log-odds"


@accepts_spec
def taylor(
    model: Model,
    case: Case,
    *,
    parts: Sequence[Part] = PARTS,
    spare: float = SPARE,
    rows: int = 16,
    progress: Progress | None = None,
) -> Localization:
    """Score every head and neuron by how much zeroing it hurts the forget facts but not the retain facts.

    A site's effect on a fact is its activation times the gradient of the answer's log-odds, summed over positions. To
    first order, this is how far the log-odds fall, in nats, when the site is zero. (Log-probabilities would not do:
    their gradient vanishes where a model is sure.) From the mean over the forget facts, `spare` times the mean *harm*
    to working retain facts is subtracted: to those of the same relations or to all others, whichever is larger. Harm is
    the effect where it is above zero. Effects below zero, where zeroing a site helps a fact, do not make up for it.

    `attribution` measures what a site does for one particular subject, and suits edits that train the sites. `taylor`
    suits edits that zero them. `python -m bench.zeroing` compares the two.

    Args:
        parts: as for `attribution`.
        spare: weight of the harm to retain facts.
        rows: facts in one batch.
        progress: called with the number of facts done and the number of all facts.

    Raises:
        UserError: a negative `spare`, or a part without activations of its own.

    Cost: a forward and a backward pass (no weight gradients) over forget and retain facts; memory for the
    activations of `rows` rows.

    Example:
        found = loka.locate.taylor(model, loka.case("capitals"))
    """
    if spare < 0:
        raise UserError(f"spare={spare} would favour sites that retain facts need; give 0 or more, such as {SPARE}.")
    scorer, settings = partial(taylor_scores, parts=parts), {"spare": spare}
    found = contrast_items(
        model, case, scorer, method="taylor", rows=rows, spare=spare, settings=settings, progress=progress
    )
    return replace(found, record=replace(found.record, unit=UNIT))


@torch.enable_grad()
def taylor_scores(model: Model, pairs: Pairs, parts: Sequence[Part] = PARTS) -> tuple[Scores, np.ndarray]:
    """Estimated falls of the answers' log-odds in nats, `[row, layer, unit]` by part; and ones, `[row]`."""
    names = hook_points(model, parts)
    run = record(model, pairs.clean, names, grad=True)
    grads = torch.autograd.grad(log_odds(run.logits, pairs).sum(), [run.activations[name] for name in names])
    activations = {name: run.activations[name].detach() for name in names}
    clean_only = replace(pairs, corrupted=pairs.clean)
    products = gradient_products(model, parts, activations, dict(zip(names, grads, strict=True)), clean_only)
    return products, np.ones(len(pairs.facts))
