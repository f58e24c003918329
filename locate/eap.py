"""Edge attribution patching: gradient times difference, for all edges of a circuit in one sweep.

EAP, Syed et al. 2023, arXiv:2310.10348.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Batch, encode
from ..model.run.hooks import Recording, record
from ..model.run.wiring import points, source_points, source_writes, target_gradients, wiring
from .circuit import Circuit, circuit
from .counterfactual import Pairs, log_odds
from .facts import over_facts
from .localization import Part

if TYPE_CHECKING:
    from ..model import Model

Intervention = Literal["patching", "zero", "mean"]
Convention = Literal["stated", "eap-ig"]
Metric = Callable[[Tensor], Tensor]
# What takes the place of the sources' outputs: those of another batch; activations by hook point; or one
# vector `[d_model]` in the place of whatever any source adds to the residual stream.
Baseline = Batch | Mapping[str, Tensor] | Tensor


def eap(
    model: Model,
    case: Case,
    *,
    intervention: Intervention = "patching",
    rows: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Circuit:
    """Score every edge between heads and MLPs for what it does for the forget facts beyond the retain facts.

    The score of an edge is, to first order, how far the answer's log-odds fall when its target reads the
    source's output from the counterfactual run, and everything else stays. Scaled and contrasted as in
    `attribution`.

    Args:
        intervention: `patching` from the counterfactual prompt; `zero`; `mean` over the forget prompts.
        rows: pairs in one batch.
        progress: called with pairs done and pairs in all.

    Cost: two forward passes, one backward pass, and one through the maps in front of the heads for each head
    of a layer; memory for every source's difference, `[row, position, source, d_model]`, besides.

    Raises:
        UserError: an intervention that is none of the three.
    """
    case = case.on(model)
    known = encode(model, [f.prompt for f in case.forget.working], [f.answer for f in case.forget.working])
    match intervention:
        case "patching":
            baseline = None
        case "zero":
            baseline = zeros(model)
        case "mean":
            baseline = means(model, known)
        case _:
            raise UserError(f"{intervention!r} is no intervention; choose one of {', '.join(get_args(Intervention))}.")

    def score(model: Model, both: Pairs) -> Tensor:
        return eap_scores(model, both.clean, baseline or both.corrupted, partial(log_odds, pairs=both))

    found = over_facts(model, case, edges(score), rows=rows, progress=progress, method="eap", intervention=intervention)
    return circuit(model, found)


def eap_scores(model: Model, clean: Batch, baseline: Baseline, metric: Metric) -> Tensor:
    """Raw scores `[row, source, target]`, in the order of `wiring(model)`.

    Args:
        baseline: a batch to patch from, aligned with `clean`; or what `zeros` or `means` give.
        metric: from logits `[row, keep, vocabulary]` to the output to explain, `[row]`.

    Entries that are no edge (`wiring(model).real`) are the same product and mean nothing.
    """
    with torch.enable_grad():
        run = record(model, clean, points(model), grad=True)
        return along(model, run, changes(model, run, clean, baseline), metric(run.logits))


def dimension_scores(
    model: Model, clean: Batch, baseline: Baseline, metric: Metric, *, convention: Convention = "stated"
) -> Tensor:
    """Raw scores of the sources by dimension of the residual stream, `[row, source, d_model]`; see `node_scores`."""
    passed = _passed(model, convention)
    with torch.enable_grad():
        run = record(model, clean, points(model), grad=True)
        way = changes(model, run, clean, baseline)
        parts = [
            torch.einsum("rpsd,trpd,st->rsd", way, grad, passed[:, some].to(way))
            for some, grad in target_gradients(model, run, metric(run.logits))
        ]
    return torch.stack(parts).sum(0).detach()


def node_scores(model: Model, scores: Tensor, *, convention: Convention = "stated") -> Tensor:
    """Scores `[row, source]` of the sources, from those of the edges: the sum over the edges that leave each.

    `convention="eap-ig"`: an MLP's output is multiplied by the gradient at its own input instead.
    """
    return (scores * _passed(model, convention).to(scores)).sum(-1)


def _passed(model: Model, convention: Convention) -> Tensor:
    """Which entries of the edges' scores add up to a source's, bool `[source, target]`."""
    wires = wiring(model)
    passed = torch.tensor(wires.real)
    if convention == "eap-ig":
        for i, name in enumerate(wires.sources):
            if name in wires.targets:
                passed[i] = torch.tensor([target == name for target in wires.targets])
    return passed


def zeros(model: Model) -> dict[str, Tensor]:
    """The baseline in which no source writes anything."""
    return {name: torch.zeros((), dtype=model.dtype, device=model.device) for name in source_points(model)}


def means(model: Model, batch: Batch, *, convention: Convention = "stated") -> dict[str, Tensor] | Tensor:
    """The baseline in which each source writes its mean over a batch's prompts, their answers left out.

    `convention="eap-ig"`: one vector for all sources, the mean over them of what they write at the last
    position, divided by the prompt's length.
    """
    before = torch.cat([batch.mask[:, : -batch.keep], batch.mask[:, -batch.keep :] * (batch.labels < 0)], 1)
    before = before.to(model.dtype)
    if convention == "eap-ig":
        with torch.enable_grad():
            run = record(model, batch, points(model), grad=True)
            wrote = source_writes(model, run, {n: run.activations[n].detach() for n in source_points(model)})
        last = wrote[torch.arange(len(before)), before.cumsum(1).argmax(1)].mean(1)
        return (last / before.sum(1, keepdim=True)).mean(0).detach()
    acts = record(model, batch, source_points(model)).activations
    return {n: torch.einsum("rp...,rp->...", value, before) / before.sum() for n, value in acts.items()}


def changes(model: Model, run: Recording, clean: Batch, baseline: Baseline) -> Tensor:
    """What each source adds to the stream in the clean run beyond the baseline, `[row, position, source, d_model]`."""
    now = {n: run.activations[n].detach() for n in source_points(model)}
    seen = clean.mask
    if isinstance(baseline, Tensor):
        return (source_writes(model, run, now) - baseline).detach() * seen[:, :, None, None]
    if isinstance(baseline, Batch):
        seen = seen * baseline.mask
        baseline = record(model, baseline, list(now)).activations
    way = {n: (value - baseline[n]) * seen.reshape(*seen.shape, *[1] * (value.ndim - 2)) for n, value in now.items()}
    return source_writes(model, run, way).detach()


def along(model: Model, run: Recording, way: Tensor, output: Tensor) -> Tensor:
    """What a change does along each edge to first order, `[row, source, target]`."""
    parts = [torch.einsum("rpsd,trpd->rst", way, grad) for _, grad in target_gradients(model, run, output)]
    return torch.cat(parts, -1).detach()


def edges(score: Callable[[Model, Pairs], Tensor]):
    """Raw scores of a locator by facts: those of the real edges in the place of a layer's units."""

    def raw(model: Model, both: Pairs) -> tuple[dict[Part, np.ndarray], np.ndarray]:
        found = score(model, both)[:, torch.tensor(wiring(model).real)].double().cpu().numpy()
        with torch.no_grad():
            odds = [log_odds(record(model, batch, []).logits, both) for batch in (both.clean, both.corrupted)]
        return {"edge": found[:, None]}, (odds[0] - odds[1]).double().cpu().numpy()  # type: ignore[dict-item]

    return raw
