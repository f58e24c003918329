"""Taylor importance: gradient times activation, for what zeroing a site would take away.

Molchanov et al. 2017, arXiv:1611.06440, there of a loss and for pruning; selective for what is to be forgotten as in
Pochinkov & Schoots 2024, arXiv:2403.01267.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Model, token_logprobs
from ..model.run.hooks import record
from .attribution import PARTS, points, products
from .counterfactual import Pairs
from .facts import Scores, over_facts
from .localization import Localization, Part

SPARE = 3.0


def taylor(
    model: Model,
    case: Case,
    *,
    parts: Sequence[Part] = PARTS,
    spare: float = SPARE,
    rows: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Localization:
    """Score every head and every neuron for what zeroing it takes from the forget facts and spares the retain facts.

    The effect of a site on a fact is its activation times the gradient of the whole answer's log-probability,
    summed over positions: to first order, how far it falls, in nats, when the site is silent. From the mean over the
    forget facts `spare` times the mean *size* over all working retain facts, other relations' too, is taken off: signed
    effects of a site that many facts use cancel in a mean, their sizes don't. `attribution` asks instead what a site
    owes to this subject, and finds sites to train; this finds sites to silence (`python -m bench.zeroing`).

    Args:
        spare: how much an effect on retain facts weighs.
        rows: facts in one batch.
        progress: called with facts done and facts in all.

    Cost: a forward and a backward pass (no weight gradients) over forget and retain facts; memory for the
    activations of `rows` rows.

    Raises:
        UserError: a negative `spare`.

    Example:
        found = loka.locate.taylor(model, loka.case("capitals"))
    """
    if spare < 0:
        raise UserError(f"spare={spare} would look for sites that retain facts need; give 0 or more, such as {SPARE}.")
    raw = partial(silence, parts=parts)
    return over_facts(model, case, raw, rows=rows, progress=progress, method="taylor", spare=spare)


@torch.enable_grad()
def silence(model: Model, pairs: Pairs, parts: Sequence[Part] = PARTS) -> tuple[Scores, np.ndarray]:
    """Estimated falls of the clean prompts' log-probability in nats, `[row, layer, unit]` by part, with unit scale."""
    names = points(model, parts)
    run = record(model, pairs.clean, names, grad=True)
    answers = token_logprobs(run.logits, pairs.clean.labels).sum()
    grads = torch.autograd.grad(answers, [run.activations[name] for name in names])
    way = {name: run.activations[name].detach() for name in names}
    alone = replace(pairs, corrupted=pairs.clean)
    return products(model, parts, way, dict(zip(names, grads, strict=True)), alone), np.ones(len(pairs.facts))
