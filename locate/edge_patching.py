"""Exact patching of edges. Edge attribution estimates it.

Wang et al. 2023, "Interpretability in the Wild" (path patching), arXiv:2211.00593.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._util.errors import UserError
from ..model import Batch, Model, chunks
from ..model.run.hooks import Hook, point, record, run
from ..model.run.single_precision import single_precision
from ..model.run.wiring import points, wiring
from .circuit import Edge
from .eap import Baseline, Metric, source_changes


def edge_patching(
    model: Model, clean: Batch, baseline: Baseline, metric: Metric, *, edges: Sequence[Edge], rows: int = 48
) -> Tensor:
    """Measure how far the output falls when only one target reads one source from the baseline, `[row, edge]`.

    The result is exact in models without a norm after attention and MLP (GPT-2, NeoX, Llama, Mistral, Qwen, Phi-3).
    In Gemma and OLMo2, a head's share of the normed sum is taken to first order.

    Args:
        baseline, metric: as for `eap_scores`; the metric gets the logits of all rows of `clean`, in order.
        rows: edges in one batch. The batch has twice as many rows for each row of `clean`.

    Raises:
        UserError: an edge that the model does not have.

    Cost: two rows for each edge and row of `clean`. The first reads the changed stream; the second takes only the
    target's output from the first.
    """
    wires = wiring(model)
    for edge in edges:
        if edge.source not in wires.sources or edge.target not in wires.targets:
            raise UserError(f"{edge} is not an edge of {model.name}; write it like a0.h1->m0 or m1->logits.")
        if not wires.real[wires.sources.index(edge.source), wires.targets.index(edge.target)]:
            raise UserError(
                f"there is no edge {edge} in {model.name}: its source writes after its target reads; name an edge that "
                "runs forward."
            )
    out = []
    with single_precision(model), torch.no_grad():
        with torch.enable_grad():
            change = source_changes(model, record(model, clean, points(model), grad=True), clean, baseline)
        base = metric(run(model, clean, []))
        for part in chunks(len(edges), rows):
            hooks = _hooks(model, edges[part], change)
            logits = run(model, _repeated(clean, 2 * len(edges[part])), hooks)
            out += [base - metric(one) for one in logits.chunk(2 * len(edges[part]))[len(edges[part]) :]]
    return torch.stack(out, 1)


def _hooks(model: Model, edges: Sequence[Edge], changes: Tensor) -> list[tuple[str, Hook]]:
    """Hooks under which the first half of the rows reads the changed stream; the second half copies the targets."""
    wires, n = wiring(model), len(changes)
    last = model.n_layers - 1
    hooks: list[tuple[str, Hook]] = []
    for i, edge in enumerate(edges):
        first, second = slice(i * n, (i + 1) * n), slice((len(edges) + i) * n, (len(edges) + i + 1) * n)
        change = changes[:, :, wires.sources.index(edge.source)]
        if edge.target == "logits":
            hooks.append((point("mlp", last), _subtract(second, change)))
            continue
        name, _, part = edge.target.partition("<")
        if part:
            layer, unit = (int(x) for x in name.removeprefix("a").replace("kv", "h").split(".h"))
            hooks += [
                (point("pre", layer), _subtract(first, change)),
                (point(part[0], layer), _copy(first, second, unit)),
            ]
        else:
            layer = int(name.removeprefix("m"))
            where = point("pre" if wires.parallel else "attn", layer)
            hooks += [(where, _subtract(first, change)), (point("mlp", layer), _copy(first, second))]
    return hooks


def _subtract(rows: slice, change: Tensor) -> Hook:
    def hook(value: Tensor) -> Tensor:
        value = value.clone()
        value[rows] -= change
        return value

    return hook


def _copy(source: slice, target: slice, unit: int | None = None) -> Hook:
    def hook(value: Tensor) -> Tensor:
        value = value.clone()
        if unit is None:
            value[target] = value[source]
        else:
            value[target, :, unit] = value[source, :, unit]
        return value

    return hook


def _repeated(batch: Batch, times: int) -> Batch:
    return Batch(*(t.repeat(times, 1) for t in (batch.ids, batch.mask, batch.positions, batch.labels)))
