"""Direct logit attribution: what heads and neurons write to the answer's logits themselves.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; nostalgebraist 2020, "logit lens".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Model
from ..model.run.hooks import frozen_norms, point, record
from .attribution import PARTS, points
from .counterfactual import Pairs, log_odds
from .facts import Scores, over_facts
from .localization import Localization, Part

WRITE: tuple[Part, ...] = ("neuron", "head", "attn", "mlp")


def direct_logit(
    model: Model,
    case: Case,
    *,
    parts: Sequence[Part] = PARTS,
    rows: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Localization:
    """Score every head and neuron for what it adds to the answer's log-odds past all later layers.

    Norms' scales are those of the clean run, so that the log-odds of one-token answers are a sum over all
    that is written; the weights stay as they are. Of longer answers the log-odds' derivative by the logits
    is taken. Shares are of the clean log-odds, the contrast as in `attribution`.

    Args:
        parts: of `neuron`, `head`, `attn` and `mlp`; output biases count to the last two.
        rows: facts in one batch.
        progress: called with facts done and facts in all.

    Raises:
        UserError: a part that writes nothing itself.

    Cost: one forward pass and a backward pass through each layer's output maps.
    """
    raw = partial(direct, parts=parts)
    return over_facts(model, case, raw, rows=rows, progress=progress, method="direct_logit")


@torch.enable_grad()
def direct(model: Model, pairs: Pairs, parts: Sequence[Part] = PARTS) -> tuple[Scores, np.ndarray]:
    """Raw scores `[row, layer, unit]` by part, and each row's log-odds `[row]`."""
    if wrong := [p for p in parts if p not in WRITE]:
        raise UserError(f"{wrong[0]!r} writes nothing to the residual stream; choose of {', '.join(WRITE)}.")
    names = points(model, dict.fromkeys([*parts, "attn", "mlp"]))
    with frozen_norms(model) as hooks:
        run = record(model, pairs.clean, names, grad=True, hooks=hooks)
    acts = run.activations
    odds = log_odds(run.logits, pairs)
    last = acts[point("mlp", model.n_layers - 1)]
    toward = torch.autograd.grad(odds.sum(), last, retain_graph=True)[0]

    def one(part: Part, layer: int) -> np.ndarray:
        value = acts[point(part, layer)]
        if part in ("attn", "mlp"):
            product = (value * toward).sum(-1, keepdim=True)
        else:
            end = acts[point("attn" if part == "head" else "mlp", layer)]
            product = value * torch.autograd.grad(end, value, toward, retain_graph=True)[0]
        product = product.sum(-1) if product.ndim == 4 else product
        return _numbers((product * pairs.clean.mask[..., None]).sum(1))

    return {part: np.stack([one(part, layer) for layer in range(model.n_layers)], 1) for part in parts}, _numbers(odds)


def _numbers(value: Tensor) -> np.ndarray:
    return value.detach().double().cpu().numpy()
