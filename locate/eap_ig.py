"""Edge attribution patching with integrated gradients, on the inputs or on the activations.

EAP-IG, Hanna et al. 2024, "Have Faith in Faithfulness", arXiv:2403.17806; on activations, Marks et al. 2024,
arXiv:2403.19647.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Batch
from ..model.run.hooks import record
from ..model.run.wiring import points, source_points
from .circuit import Circuit, circuit
from .counterfactual import Pairs, log_odds
from .eap import Convention, Metric, along, changes, edges
from .facts import over_facts
from .path import Rule, between, grid

if TYPE_CHECKING:
    from ..model import Model

On = Literal["inputs", "activations"]
STEPS = 5


def eap_ig(
    model: Model,
    case: Case,
    *,
    on: On = "inputs",
    steps: int = STEPS,
    rows: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Circuit:
    """Like `eap`, with gradients averaged on the way from the counterfactual to the clean run.

    A gradient at the clean prompt alone is blind to what saturates there. Integrals rank the strong edges
    better against exact patching, the single gradient the many weak ones.

    Args:
        on: `inputs` moves the tokens' embedding; `activations` moves each layer's heads, each MLP and the
            embedding in runs of their own, and takes the edges out of them from these.
        steps: points on the way.
        rows: pairs in one batch.
        progress: called with pairs done and pairs in all.

    Cost: as `eap`, its backward part `steps` times; on activations `steps * (2 * layers + 1)` times.

    Raises:
        UserError: fewer than one step, or something else to integrate over.
    """

    def score(model: Model, both: Pairs) -> Tensor:
        metric = partial(log_odds, pairs=both)
        return eap_ig_scores(model, both.clean, both.corrupted, metric, on=on, steps=steps)

    found = over_facts(model, case, edges(score), rows=rows, progress=progress, method="eap_ig", on=on, steps=steps)
    return circuit(model, found)


def eap_ig_scores(
    model: Model,
    clean: Batch,
    corrupted: Batch,
    metric: Metric,
    *,
    on: On = "inputs",
    steps: int = STEPS,
    rule: Rule = "midpoint",
    convention: Convention = "stated",
) -> Tensor:
    """Raw scores `[row, source, target]`, in the order of `wiring(model)`; see `eap_scores`.

    `rule="left"` (edges), `"right"` (nodes and activations) and `"ends"` with two steps (called
    clean-corrupted) are those of the published code. There, on activations, an edge's gradient is the mean
    over the runs in which any source is moved: `convention="eap-ig"`.
    """
    if on not in get_args(On):
        raise UserError(f"{on!r} is nothing to integrate over; choose one of {', '.join(get_args(On))}.")
    shares, moved = grid(steps, rule), source_points(model)[: 1 if on == "inputs" else None]
    here, there = (record(model, batch, moved).activations for batch in (clean, corrupted))
    seen = clean.mask * corrupted.mask

    def at(name: str, share: float) -> Tensor:
        hooks = [(name, between(here[name], there[name], seen, share))]
        run = record(model, clean, points(model), grad=True, hooks=hooks)
        return along(model, run, way, metric(run.logits))

    with torch.enable_grad():
        way = changes(model, record(model, clean, points(model), grad=True), clean, corrupted)
        means = [torch.stack([at(name, share) for share in shares]).mean(0) for name in moved]
    if on == "inputs" or convention == "eap-ig":
        return torch.stack(means).mean(0)
    return torch.cat([mean[:, own] for mean, own in zip(means, _sources(model), strict=True)], 1)


def _sources(model: Model) -> list[slice]:
    """Where each entry of `source_points(model)` has its sources."""
    sizes = [1, *(n for _ in range(model.n_layers) for n in (model.n_heads, 1))]
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
