"""Attribution patching with its two known failures mended: saturated attention, and effects that cancel.

AtP*, Kramár et al. 2024, arXiv:2403.00745.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..knowledge import Case
from ..model import Batch, Model
from ..model.run.hooks import Hook, point, record
from .attribution import PARTS, points, products
from .counterfactual import Pairs, log_odds
from .facts import Scores, over_facts
from .localization import Localization, Part


def atp_star(
    model: Model,
    case: Case,
    *,
    parts: Sequence[Part] = (*PARTS, "kv"),
    rows: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Localization:
    """Like `attribution`, for key/value groups too, with both corrections of AtP*.

    Saturated attention: what other keys do to a head's attention is computed exactly, and only the way
    from there on is taken to first order. A group's score is that of its keys and its values.

    GradDrop: direct and indirect effects of opposite sign cancel in one gradient, so that there is one
    backward pass for each layer, in which no gradient passes through it. The paper averages the absolute
    scores; here they get the sign of their mean, because signed scores are contrasted.

    Args:
        parts: of `neuron`, `head` and `kv`.
        rows: pairs in one batch.
        progress: called with pairs done and pairs in all.

    Cost: a forward pass on each side, one over three times the rows, and a backward pass for each layer.
    """
    raw = partial(star, parts=parts)
    return over_facts(model, case, raw, rows=rows, progress=progress, method="atp_star")


@torch.enable_grad()
def star(model: Model, pairs: Pairs, parts: Sequence[Part] = (*PARTS, "kv")) -> tuple[Scores, np.ndarray]:
    """Raw scores `[row, layer, unit]` by part, and each row's fall in log-odds `[row]`."""
    plain = [part for part in parts if part != "kv"]
    attention = ("v", "pattern") if "kv" in parts else ()
    names = points(model, [*plain, *attention])
    dropped: list[int] = []
    other = record(model, pairs.corrupted, names)
    base = record(model, pairs.clean, names, grad=True, hooks=_gates(model, dropped))
    odds = log_odds(base.logits, pairs)
    way = {n: base.activations[n].detach() - other.activations[n] for n in names if "pattern" not in n}
    patterns = _patterns(model, pairs)[1] if "kv" in parts else {}
    total: dict[Part, list[np.ndarray]] = {part: [] for part in parts}
    for layer in range(model.n_layers):
        dropped[:] = [layer]
        found = torch.autograd.grad(odds.sum(), [base.activations[n] for n in names], retain_graph=True)
        grads = dict(zip(names, found, strict=True))
        for part, scores in products(model, plain, way, grads, pairs).items():
            total[part].append(scores)
        if "kv" in parts:
            keys = _by_group(model, _attended(model, patterns, grads))
            total["kv"].append(keys + products(model, ["v"], way, grads, pairs)["v"])
    fall = odds.detach() - log_odds(other.logits, pairs)
    return {part: _dropped_mean(np.stack(scores)) for part, scores in total.items()}, fall.double().cpu().numpy()


@torch.enable_grad()
def query_key_scores(model: Model, pairs: Pairs) -> dict[str, np.ndarray]:
    """Scores of other queries, `q` `[row, layer, head]`, and other keys, `k` `[row, layer, group]`, without GradDrop.

    Attention's weights are recomputed exactly, all of a layer's heads at once: heads don't see each other's
    queries and keys but where a norm spans them (OLMo2), there this is no longer each head on its own.
    """
    names = points(model, ["pattern"])
    base = record(model, pairs.clean, names, grad=True)
    odds = log_odds(base.logits, pairs)
    grads = dict(zip(names, torch.autograd.grad(odds.sum(), [base.activations[n] for n in names]), strict=True))
    queries, keys = (_attended(model, some, grads) for some in _patterns(model, pairs))
    return {"q": queries, "k": _by_group(model, keys)}


def _gates(model: Model, dropped: list[int]) -> list[tuple[str, Hook]]:
    """Hooks through which no gradient passes while their layer is in `dropped`."""

    def gate(layer: int, value: Tensor) -> Tensor:
        value = value.clone()
        value.register_hook(lambda grad: grad * (layer not in dropped))
        return value

    layers = range(model.n_layers)
    return [(point(part, layer), partial(gate, layer)) for layer in layers for part in ("attn", "mlp")]


def _dropped_mean(scores: np.ndarray) -> np.ndarray:
    """GradDrop's mean over dropped layers `[layer, ...]`; a layer that is dropped says nothing of its own sites."""
    return np.sign(scores.sum(0)) * np.abs(scores).sum(0) / max(len(scores) - 1, 1)


@torch.no_grad()
def _patterns(model: Model, pairs: Pairs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By how much attention's weights fall with another prompt's queries, and with its keys.

    One pass over three copies of the rows: the clean run, and two that are put back to it in front of every
    layer, and get their queries or their keys from the other prompt.
    """
    n, names = len(pairs.clean.ids), points(model, ["q", "k"])
    other = record(model, pairs.corrupted, names).activations
    seen = (pairs.clean.mask * pairs.corrupted.mask).bool()[..., None, None]
    hooks: list[tuple[str, Hook]] = []
    for layer in range(model.n_layers):
        hooks.append((point("pre", layer), lambda value: value[:n].repeat(3, 1, 1)))
        for copy, part in enumerate("qk", start=1):
            name = point(part, layer)
            hooks.append((name, partial(_put, slice(copy * n, (copy + 1) * n), other[name], seen)))
    batch = pairs.clean
    three = Batch(*(t.repeat(3, 1) for t in (batch.ids, batch.mask, batch.positions, batch.labels)))
    found = record(model, three, points(model, ["pattern"]), hooks=hooks).activations
    one, two = ({name: p[:n] - p[i * n : (i + 1) * n] for name, p in found.items()} for i in (1, 2))
    return one, two


def _put(rows: slice, other: Tensor, seen: Tensor, value: Tensor) -> Tensor:
    value = value.clone()
    value[rows] = torch.where(seen, other, value[rows])
    return value


def _attended(model: Model, falls: dict[str, Tensor], grads: dict[str, Tensor]) -> np.ndarray:
    """What falls of attention's weights do to first order, `[row, layer, head]`."""
    names = points(model, ["pattern"])
    return np.stack([(falls[n] * grads[n]).sum((-1, -2)).double().cpu().numpy() for n in names], 1)


def _by_group(model: Model, heads: np.ndarray) -> np.ndarray:
    """Heads' scores summed over those that share a key."""
    return heads.reshape(*heads.shape[:2], model.n_kv_heads, -1).sum(-1)
