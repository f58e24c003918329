"""Exact patching of edges, the check on edge attribution.

Wang et al. 2023, "Interpretability in the Wild" (path patching), arXiv:2211.00593.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._util.errors import UserError
from ..model import Batch, Model, chunks
from ..model.run.hooks import Hook, point, record, run
from ..model.run.wiring import points, wiring
from .circuit import Edge
from .eap import Baseline, Metric, changes


def edge_patching(
    model: Model, clean: Batch, baseline: Baseline, metric: Metric, *, edges: Sequence[Edge], rows: int = 48
) -> Tensor:
    """How far the output falls when one target alone reads one source from the baseline, `[row, edge]`.

    What a source adds to the residual stream is exact where no norm follows a block's parts, as in GPT-2,
    NeoX, Llama, Mistral, Qwen and Phi-3; in Gemma and OLMo2 a head's part of a normed sum is its first order.

    Args:
        baseline, metric: as for `eap_scores`; the metric gets the logits of all rows of `clean`, in order.
        rows: edges in one batch, times the rows of `clean`, times two.

    Cost: two rows an edge and row of `clean`: one that reads the changed stream, one that takes from it what
    the target made of it.

    Raises:
        UserError: an edge that the model does not have.
    """
    wires = wiring(model)
    for edge in edges:
        if edge.source not in wires.sources or edge.target not in wires.targets:
            raise UserError(f"{edge} is no edge of {model.name}; write it like a0.h1->m0 or m1->logits.")
        if not wires.real[wires.sources.index(edge.source), wires.targets.index(edge.target)]:
            raise UserError(f"there is no edge {edge} in {model.name}: what is written there comes too late.")
    with torch.enable_grad():
        way = changes(model, record(model, clean, points(model), grad=True), clean, baseline)
    out = []
    with torch.no_grad():
        base = metric(run(model, clean, []))
        for part in chunks(len(edges), rows):
            hooks = _hooks(model, edges[part], way)
            logits = run(model, _repeated(clean, 2 * len(edges[part])), hooks)
            out += [base - metric(some) for some in logits.chunk(2 * len(edges[part]))[len(edges[part]) :]]
    return torch.stack(out, 1)


def _hooks(model: Model, edges: Sequence[Edge], way: Tensor) -> list[tuple[str, Hook]]:
    """The first half of the rows reads the changed stream, the second takes the targets from the first."""
    wires, n = wiring(model), len(way)
    last = model.n_layers - 1
    hooks: list[tuple[str, Hook]] = []
    for i, edge in enumerate(edges):
        giver, taker = slice(i * n, (i + 1) * n), slice((len(edges) + i) * n, (len(edges) + i + 1) * n)
        change = way[:, :, wires.sources.index(edge.source)]
        if edge.target == "logits":
            hooks.append((point("mlp", last), _less(taker, change)))
            continue
        name, _, part = edge.target.partition("<")
        if part:
            layer, unit = (int(x) for x in name.removeprefix("a").replace("kv", "h").split(".h"))
            hooks += [(point("pre", layer), _less(giver, change)), (point(part[0], layer), _take(giver, taker, unit))]
        else:
            layer = int(name.removeprefix("m"))
            where = point("pre" if wires.parallel else "attn", layer)
            hooks += [(where, _less(giver, change)), (point("mlp", layer), _take(giver, taker))]
    return hooks


def _less(rows: slice, change: Tensor) -> Hook:
    def hook(value: Tensor) -> Tensor:
        value = value.clone()
        value[rows] -= change
        return value

    return hook


def _take(giver: slice, taker: slice, unit: int | None = None) -> Hook:
    def hook(value: Tensor) -> Tensor:
        value = value.clone()
        if unit is None:
            value[taker] = value[giver]
        else:
            value[taker, :, unit] = value[giver, :, unit]
        return value

    return hook


def _repeated(batch: Batch, times: int) -> Batch:
    return Batch(*(t.repeat(times, 1) for t in (batch.ids, batch.mask, batch.positions, batch.labels)))
