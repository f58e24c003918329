"""AtP*: attribution patching with corrections for saturated attention and for effects that cancel.

Kramár et al. 2024, arXiv:2403.00745.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor

from ..knowledge import Case, accepts_spec
from ..model import Batch, Model
from ..model.run.hooks import Hook, point, record
from .attribution import PARTS, gradient_products, hook_points
from .contrast import Progress, Scores, contrast_items
from .counterfactual import Pairs, log_odds
from .localization import Localization, Part


@accepts_spec
def atp_star(
    model: Model,
    case: Case,
    *,
    parts: Sequence[Part] = (*PARTS, "kv"),
    rows: int = 16,
    progress: Progress | None = None,
) -> Localization:
    """Score like `attribution`, also for key/value groups, with both corrections of AtP*.

    Saturated attention: the effect of other keys on a head's attention weights is computed exactly; only what follows
    is linearized. A group's score is the score of its keys plus that of its values.

    GradDrop: direct and indirect effects of opposite sign can cancel in one gradient. Each layer therefore gets one
    backward pass in which its gradient is blocked. The paper averages the absolute scores. Here the average gets the
    sign of the scores' mean, because the contrast needs signed scores.

    Args:
        parts: of `neuron`, `head` and `kv`.
        rows: pairs in one batch.
        progress: called with the number of pairs done and the number of all pairs.

    Cost: a forward pass on each side, one over three times the rows, and a backward pass for each layer.
    """
    scorer = partial(atp_star_scores, parts=parts)
    return contrast_items(model, case, scorer, method="atp_star", rows=rows, progress=progress)


@torch.enable_grad()
def atp_star_scores(model: Model, pairs: Pairs, parts: Sequence[Part] = (*PARTS, "kv")) -> tuple[Scores, np.ndarray]:
    """Raw scores `[row, layer, unit]` by part, and each row's fall in log-odds, `[row]`."""
    plain: list[Part] = [part for part in parts if part != "kv"]
    attention = ("v", "pattern") if "kv" in parts else ()
    names = hook_points(model, [*plain, *attention])
    dropped: list[int] = []
    other = record(model, pairs.corrupted, names)
    base = record(model, pairs.clean, names, grad=True, hooks=_gradient_gates(model, dropped))
    odds = log_odds(base.logits, pairs)
    change = {n: base.activations[n].detach() - other.activations[n] for n in names if "pattern" not in n}
    patterns = _pattern_changes(model, pairs)[1] if "kv" in parts else {}
    by_layer: dict[Part, list[np.ndarray]] = {part: [] for part in parts}
    for layer in range(model.n_layers):
        dropped[:] = [layer]
        found = torch.autograd.grad(odds.sum(), [base.activations[n] for n in names], retain_graph=True)
        grads = dict(zip(names, found, strict=True))
        for part, scores in gradient_products(model, plain, change, grads, pairs).items():
            by_layer[part].append(scores)
        if "kv" in parts:
            keys = _sum_groups(model, _pattern_scores(model, patterns, grads))
            by_layer["kv"].append(keys + gradient_products(model, ["v"], change, grads, pairs)["v"])
    fall = odds.detach() - log_odds(other.logits, pairs)
    return {part: _drop_mean(np.stack(scores)) for part, scores in by_layer.items()}, fall.double().cpu().numpy()


@torch.enable_grad()
def query_key_scores(model: Model, pairs: Pairs) -> dict[str, np.ndarray]:
    """Scores of other queries, `q` `[row, layer, head]`, and other keys, `k` `[row, layer, group]`, without GradDrop.

    Attention weights are recomputed exactly, for all heads of a layer at once. Heads do not see each other's queries
    and keys, except where a norm spans the heads (OLMo2); there, the scores are not those of single heads.
    """
    names = hook_points(model, ["pattern"])
    base = record(model, pairs.clean, names, grad=True)
    odds = log_odds(base.logits, pairs)
    grads = dict(zip(names, torch.autograd.grad(odds.sum(), [base.activations[n] for n in names]), strict=True))
    queries, keys = (_pattern_scores(model, falls, grads) for falls in _pattern_changes(model, pairs))
    return {"q": queries, "k": _sum_groups(model, keys)}


def _gradient_gates(model: Model, dropped: list[int]) -> list[tuple[str, Hook]]:
    """Hooks that block the gradient through a layer's parts while the layer is in `dropped`."""

    def gate(layer: int, value: Tensor) -> Tensor:
        value = value.clone()
        value.register_hook(lambda grad: grad * (layer not in dropped))
        return value

    layers = range(model.n_layers)
    return [(point(part, layer), partial(gate, layer)) for layer in layers for part in ("attn", "mlp")]


def _drop_mean(scores: np.ndarray) -> np.ndarray:
    """GradDrop's mean over `[dropped layer, ...]`. A site has no score while its own layer is dropped."""
    return np.sign(scores.sum(0)) * np.abs(scores).sum(0) / max(len(scores) - 1, 1)


@torch.no_grad()
def _pattern_changes(model: Model, pairs: Pairs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """How far attention weights fall with the other prompt's queries, and with its keys.

    One pass runs three copies of the rows: the clean one, and two that are reset to it before every layer and get
    their queries or their keys from the other prompt.
    """
    n, names = len(pairs.clean.ids), hook_points(model, ["q", "k"])
    other = record(model, pairs.corrupted, names).activations
    valid = rearrange((pairs.clean.mask * pairs.corrupted.mask).bool(), "row position -> row position 1 1")
    hooks: list[tuple[str, Hook]] = []
    for layer in range(model.n_layers):
        hooks.append((point("pre", layer), lambda value: value[:n].repeat(3, 1, 1)))
        for copy, part in enumerate("qk", start=1):
            name = point(part, layer)
            hooks.append((name, partial(_replace_rows, slice(copy * n, (copy + 1) * n), other[name], valid)))
    batch = pairs.clean
    three = Batch(*(t.repeat(3, 1) for t in (batch.ids, batch.mask, batch.positions, batch.labels)))
    found = record(model, three, hook_points(model, ["pattern"]), hooks=hooks).activations
    queries, keys = ({name: p[:n] - p[i * n : (i + 1) * n] for name, p in found.items()} for i in (1, 2))
    return queries, keys


def _replace_rows(rows: slice, other: Tensor, valid: Tensor, value: Tensor) -> Tensor:
    value = value.clone()
    value[rows] = torch.where(valid, other, value[rows])
    return value


def _pattern_scores(model: Model, falls: dict[str, Tensor], grads: dict[str, Tensor]) -> np.ndarray:
    """The first-order effect of falling attention weights, `[row, layer, head]`."""
    names = hook_points(model, ["pattern"])
    return np.stack([(falls[n] * grads[n]).sum((-1, -2)).double().cpu().numpy() for n in names], 1)


def _sum_groups(model: Model, heads: np.ndarray) -> np.ndarray:
    """Sum the scores of heads that share a key."""
    return reduce(heads, "row layer (group head) -> row layer group", "sum", group=model.n_kv_heads)
