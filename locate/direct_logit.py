"""Direct logit attribution: what heads and neurons write directly to the answer's logits.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; nostalgebraist 2020, "logit lens".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Model
from ..model.run.hooks import frozen_norms, point, record
from .attribution import PARTS, hook_points
from .contrast import Progress, Scores, contrast_items
from .counterfactual import Pairs, log_odds
from .localization import Localization, Part

WRITERS: tuple[Part, ...] = ("neuron", "head", "attn", "mlp")


@accepts_spec
def direct_logit(
    model: Model,
    case: Case,
    *,
    parts: Sequence[Part] = PARTS,
    rows: int = 16,
    progress: Progress | None = None,
) -> Localization:
    """Score every head and neuron by what it adds to the answer's log-odds directly, not through later layers.

    Norms keep the scale of the clean run, so the log-odds of one-token answers are the sum of everything that is
    written. For longer answers, the derivative of the log-odds with respect to the logits is used. Scores are shares
    of the clean log-odds; the contrast is that of `attribution`.

    Args:
        parts: of `neuron`, `head`, `attn` and `mlp`. Output biases count towards the last two.
        rows: facts in one batch.
        progress: called with the number of facts done and the number of all facts.

    Raises:
        UserError: a part that does not write to the residual stream.

    Cost: one forward pass, and a backward pass through each layer's output maps.
    """
    scorer = partial(direct_logit_scores, parts=parts)
    return contrast_items(model, case, scorer, method="direct_logit", rows=rows, progress=progress)


@torch.enable_grad()
def direct_logit_scores(model: Model, pairs: Pairs, parts: Sequence[Part] = PARTS) -> tuple[Scores, np.ndarray]:
    """Raw scores `[row, layer, unit]` by part, and each row's log-odds, `[row]`."""
    if wrong := [p for p in parts if p not in WRITERS]:
        raise UserError(f"{wrong[0]!r} does not write to the residual stream; choose from {', '.join(WRITERS)}.")
    names = hook_points(model, dict.fromkeys([*parts, "attn", "mlp"]))
    with frozen_norms(model) as hooks:
        run = record(model, pairs.clean, names, grad=True, hooks=hooks)
    acts = run.activations
    odds = log_odds(run.logits, pairs)
    last = acts[point("mlp", model.n_layers - 1)]
    direction = torch.autograd.grad(odds.sum(), last, retain_graph=True)[0]

    def one(part: Part, layer: int) -> np.ndarray:
        value = acts[point(part, layer)]
        if part in ("attn", "mlp"):
            product = (value * direction).sum(-1, keepdim=True)
        else:
            end = acts[point("attn" if part == "head" else "mlp", layer)]
            product = value * torch.autograd.grad(end, value, direction, retain_graph=True)[0]
        product = product.sum(-1) if product.ndim == 4 else product
        return _to_numpy((product * pairs.clean.mask[..., None]).sum(1))

    scores: Scores = {part: np.stack([one(part, layer) for layer in range(model.n_layers)], 1) for part in parts}
    return scores, _to_numpy(odds)


def _to_numpy(value: Tensor) -> np.ndarray:
    return value.detach().double().cpu().numpy()
