"""Edge attribution patching: gradient times difference, for all edges between heads and MLPs in one sweep.

EAP, Syed et al. 2023, arXiv:2310.10348.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Batch, Model, encode
from ..model.run.hooks import Recording, record
from ..model.run.wiring import points, source_points, source_writes, target_gradients, wiring
from .circuit import Circuit, circuit
from .contrast import Progress, Scorer, Scores, contrast_items
from .counterfactual import Pairs, log_odds

Intervention = Literal["patching", "zero", "mean"]
Convention = Literal["stated", "eap-ig"]
Metric = Callable[[Tensor], Tensor]
# What replaces the sources' outputs: the outputs on another batch, activations by hook point, or one vector
# `[d_model]` in place of what each source adds to the residual stream.
Baseline = Batch | Mapping[str, Tensor] | Tensor


@accepts_spec
def eap(
    model: Model,
    case: Case,
    *,
    intervention: Intervention = "patching",
    rows: int = 4,
    progress: Progress | None = None,
) -> Circuit:
    """Score every edge between heads and MLPs by its effect on the forget facts beyond that on the retain facts.

    An edge's score is, to first order, how far the answer's log-odds fall when only its target reads the source's
    output from the counterfactual run. Scores are scaled and contrasted as in `attribution`.

    Args:
        intervention: `patching` from the counterfactual prompt; `zero`; `mean` over the forget prompts.
        rows: pairs in one batch.
        progress: called with the number of pairs done and the number of all pairs.

    Raises:
        UserError: an unknown intervention.

    Cost: two forward passes, one backward pass, and for each head of a layer one backward pass through the heads'
    input maps; also memory for every source's difference, `[row, position, source, d_model]`.
    """
    known = encode(model, [f.prompt for f in case.forget.working], [f.answer for f in case.forget.working])
    match intervention:
        case "patching":
            baseline = None
        case "zero":
            baseline = zeros(model)
        case "mean":
            baseline = means(model, known)
        case _:
            raise UserError(
                f"{intervention!r} is not an intervention; choose one of {', '.join(get_args(Intervention))}."
            )

    def score(model: Model, both: Pairs) -> Tensor:
        return eap_scores(model, both.clean, baseline or both.corrupted, partial(log_odds, pairs=both))

    scorer, settings = edge_scorer(score), {"intervention": intervention}
    found = contrast_items(model, case, scorer, method="eap", rows=rows, settings=settings, progress=progress)
    return circuit(model, found)


def eap_scores(model: Model, clean: Batch, baseline: Baseline, metric: Metric) -> Tensor:
    """Raw scores `[row, source, target]`, in the order of `wiring(model)`.

    Entries that are not edges (see `wiring(model).real`) have no meaning.

    Args:
        baseline: a batch to patch from, aligned with `clean`; or the result of `zeros` or `means`.
        metric: maps logits `[row, keep, vocabulary]` to the output to explain, `[row]`.
    """
    with torch.enable_grad():
        run = record(model, clean, points(model), grad=True)
        return edge_effects(model, run, source_changes(model, run, clean, baseline), metric(run.logits))


def dimension_scores(
    model: Model, clean: Batch, baseline: Baseline, metric: Metric, *, convention: Convention = "stated"
) -> Tensor:
    """Raw scores of the sources by dimension of the residual stream, `[row, source, d_model]`.

    Arguments as for `eap_scores` and `node_scores`.
    """
    counted = _counted_edges(model, convention)
    with torch.enable_grad():
        run = record(model, clean, points(model), grad=True)
        change = source_changes(model, run, clean, baseline)
        parts = [
            torch.einsum("rpsd,trpd,st->rsd", change, grad, counted[:, targets].to(change))
            for targets, grad in target_gradients(model, run, metric(run.logits))
        ]
    return torch.stack(parts).sum(0).detach()


def node_scores(model: Model, scores: Tensor, *, convention: Convention = "stated") -> Tensor:
    """Each source's score, the sum over the edges that leave it, `[row, source]`.

    Args:
        scores: edge scores `[row, source, target]`.
        convention: `eap-ig` multiplies an MLP's output by the gradient at that MLP's own input, as the published
            code does.
    """
    return (scores * _counted_edges(model, convention).to(scores)).sum(-1)


def _counted_edges(model: Model, convention: Convention) -> Tensor:
    """Which edges' scores add up to their source's score, bool `[source, target]`."""
    wires = wiring(model)
    counted = torch.tensor(wires.real)
    if convention == "eap-ig":
        for i, name in enumerate(wires.sources):
            if name in wires.targets:
                counted[i] = torch.tensor([target == name for target in wires.targets])
    return counted


def zeros(model: Model) -> dict[str, Tensor]:
    """The baseline in which every source writes zero."""
    return {name: torch.zeros((), dtype=model.dtype, device=model.device) for name in source_points(model)}


def means(model: Model, batch: Batch, *, convention: Convention = "stated") -> dict[str, Tensor] | Tensor:
    """The baseline in which each source writes its mean over a batch's prompts, without their answers.

    Args:
        convention: `eap-ig` uses one vector for all sources, as the published code does: the mean over the sources
            of what they write at the last position, divided by the prompt's length.
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


def source_changes(model: Model, run: Recording, clean: Batch, baseline: Baseline) -> Tensor:
    """What each source adds to the stream in the clean run beyond the baseline, `[row, position, source, d_model]`."""
    clean_outputs = {n: run.activations[n].detach() for n in source_points(model)}
    mask = clean.mask
    if isinstance(baseline, Tensor):
        return (source_writes(model, run, clean_outputs) - baseline).detach() * mask[:, :, None, None]
    if isinstance(baseline, Batch):
        mask = mask * baseline.mask
        baseline = record(model, baseline, list(clean_outputs)).activations
    change = {
        n: (value - baseline[n]) * mask.reshape(*mask.shape, *[1] * (value.ndim - 2))
        for n, value in clean_outputs.items()
    }
    return source_writes(model, run, change).detach()


def edge_effects(model: Model, run: Recording, change: Tensor, output: Tensor) -> Tensor:
    """The first-order effect of a change of the sources along each edge, `[row, source, target]`."""
    parts = [torch.einsum("rpsd,trpd->rst", change, grad) for _, grad in target_gradients(model, run, output)]
    return torch.cat(parts, -1).detach()


def edge_scorer(score: Callable[[Model, Pairs], Tensor]) -> Scorer:
    """A scorer for `contrast_items`: one layer, whose units are the model's edges."""

    def scorer(model: Model, both: Pairs) -> tuple[Scores, np.ndarray]:
        found = score(model, both)[:, torch.tensor(wiring(model).real)].double().cpu().numpy()
        with torch.no_grad():
            odds = [log_odds(record(model, batch, []).logits, both) for batch in (both.clean, both.corrupted)]
        return {"edge": found[:, None]}, (odds[0] - odds[1]).double().cpu().numpy()  # type: ignore[dict-item]

    return scorer
