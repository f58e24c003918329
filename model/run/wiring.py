"""How heads and MLPs write to the residual stream and read from it: the nodes and edges of a circuit.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; the order of nodes is that of
Hanna et al. 2024, arXiv:2403.17806.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..batch import pad
from .hooks import Recording, point, record

if TYPE_CHECKING:
    from ..load import Model


@dataclass(frozen=True, eq=False)
class Wiring:
    """The nodes of a model, and the edges between them.

    `sources`: `input`, then by layer the heads `a3.h0`, `a3.h1`, ... and the MLP `m3`. `targets`: by layer the heads'
    queries `a3.h0<q>`, their keys and values (`a3.h0<k>`, or `a3.kv0<k>` where heads share them), and the MLP; and,
    last, `logits`. `real`: bool `[source, target]`, whether the edge exists. `parallel`: whether a layer's MLP reads
    the same stream as its attention.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    real: np.ndarray
    parallel: bool


def wiring(model: Model) -> Wiring:
    """The nodes and edges of a model. Cost: one forward pass over two tokens, the first time."""
    return model.cache.get("wiring", None, lambda: _wiring(model))


def points(model: Model) -> list[str]:
    """The hook points that `source_writes` and `target_gradients` need. Record them with `grad`."""
    parts = ("pre", "q", "k", "v", "head", "attn", "mlp")
    return [point("embed"), *(point(part, layer) for layer in range(model.n_layers) for part in parts)]


def source_points(model: Model) -> list[str]:
    """The hook points of the sources, in order: the input's, then by layer the heads' and the MLP's."""
    layers = range(model.n_layers)
    return [point("embed"), *(point(part, layer) for layer in layers for part in ("head", "mlp"))]


def source_writes(model: Model, run: Recording, way: Mapping[str, Tensor]) -> Tensor:
    """The addition of each source to the residual stream when its output changes, `[row, position, source, d_model]`.

    Args:
        run: a recording at `points(model)` with `grad`.
        way: the change, by hook point of the embedding, the heads and the MLPs, shaped like their activations.

    A head is followed by the output map and, in some models, by a norm, which is taken to first order.
    """
    acts = run.activations
    out = [_push(acts[point("embed")], acts[point("pre", 0)], way[point("embed")][None])]
    for layer in range(model.n_layers):
        heads = point("head", layer)
        out.append(_push(acts[heads], acts[point("attn", layer)], _one_by_one(way[heads])))
        out.append(way[point("mlp", layer)][None])
    return rearrange(torch.cat(out), "source row position feature -> row position source feature")


def target_gradients(model: Model, run: Recording, output: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The gradient of an output at the targets' inputs: slices of targets, and `[target, row, position, d_model]`.

    Args:
        run: a recording at `points(model)` with `grad`.
        output: `[row]`, computed from `run.logits`.

    A target's input is the stream before its norm. Cost: one backward pass through the model, and for each head one
    through the maps before the heads.
    """
    acts, parallel = run.activations, wiring(model).parallel
    names = [point(part, layer) for layer in range(model.n_layers) for part in ("q", "k", "v", "mlp")]
    found = torch.autograd.grad(output.sum(), [acts[n] for n in names], retain_graph=True, allow_unused=True)
    grads = {n: torch.zeros_like(acts[n]) if g is None else g for n, g in zip(names, found, strict=True)}
    start = 0
    for layer in range(model.n_layers):
        pre, mlp = acts[point("pre", layer)], point("mlp", layer)
        into = [_pull(acts[n], pre, _one_by_one(grads[n])) for n in (point(part, layer) for part in "qkv")]
        middle = pre if parallel else acts[point("attn", layer)]  # its gradient is that of the sum
        into.append(_pull(acts[mlp], middle, grads[mlp][None]))
        for grad in into:
            yield slice(start, start + len(grad)), grad
            start += len(grad)
    yield slice(start, start + 1), grads[point("mlp", model.n_layers - 1)][None]


@torch.enable_grad()
def _wiring(model: Model) -> Wiring:
    run = record(model, pad(model, [[model.start_id] * 2], [1]), [point("attn"), point("mlp")], grad=True)
    attention, mlp = run.activations.values()
    parallel = torch.autograd.grad(mlp.sum(), attention, allow_unused=True)[0] is None
    shared = "h" if model.n_kv_heads == model.n_heads else "kv"
    sources, targets = [("input", -2)], []  # with the time of their write or read: 2 * layer, and 1 later for MLPs
    for layer in range(model.n_layers):
        sources += [(f"a{layer}.h{i}", 2 * layer) for i in range(model.n_heads)]
        targets += [(f"a{layer}.h{i}<q>", 2 * layer) for i in range(model.n_heads)]
        targets += [(f"a{layer}.{shared}{i}<{x}>", 2 * layer) for x in "kv" for i in range(model.n_kv_heads)]
        sources.append((f"m{layer}", 2 * layer + (not parallel)))
        targets.append((f"m{layer}", 2 * layer + (not parallel)))
    targets.append(("logits", 2 * model.n_layers))
    wrote, reads = (np.array([time for _, time in nodes]) for nodes in (sources, targets))
    return Wiring(tuple(n for n, _ in sources), tuple(n for n, _ in targets), wrote[:, None] < reads[None], parallel)


def _one_by_one(value: Tensor) -> Tensor:
    """`[row, position, unit, width]` to `[unit, row, position, unit, width]`, with all units but one set to zero."""
    n = value.shape[2]
    return value * torch.eye(n, dtype=value.dtype, device=value.device)[:, None, None, :, None]


def _pull(end: Tensor, start: Tensor, grads: Tensor) -> Tensor:
    """Gradients at `end`, `[k, *end.shape]`, pulled back to `start`; 0 where a hook has cut `end` off."""
    if end.grad_fn is None:
        return torch.zeros_like(start).expand(len(grads), *start.shape)
    return torch.autograd.grad(end, start, grads, retain_graph=True, is_grads_batched=True)[0]


def _push(start: Tensor, end: Tensor, changes: Tensor) -> Tensor:
    """Changes of `start`, `[k, *start.shape]`, pushed to `end`: the derivative of `_pull` by its gradients."""
    dummy: Any = torch.zeros_like(end, requires_grad=True)
    back = torch.autograd.grad(end, start, dummy, create_graph=True)[0]
    return torch.autograd.grad(back, dummy, changes, retain_graph=True, is_grads_batched=True)[0]
