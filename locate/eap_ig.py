"""Edge attribution patching with integrated gradients, on inputs or activations.

EAP-IG, Hanna et al. 2024, "Have Faith in Faithfulness", arXiv:2403.17806. On activations: Marks et al. 2024,
arXiv:2403.19647.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Batch, Model
from ..model.run.hooks import record
from ..model.run.wiring import points, source_points
from .circuit import Circuit, circuit
from .contrast import Progress, contrast_items
from .counterfactual import Pairs, log_odds
from .eap import Convention, Metric, edge_effects, edge_scorer, source_changes
from .integration import Rule, integration_points, interpolate

On = Literal["inputs", "activations"]
STEPS = 5


@accepts_spec
def eap_ig(
    model: Model,
    case: Case,
    *,
    on: On = "inputs",
    steps: int = STEPS,
    rows: int = 4,
    progress: Progress | None = None,
) -> Circuit:
    """Score like `eap`, with gradients averaged on the path from the counterfactual to the clean run.

    The gradient at the clean prompt alone misses what saturates there.

    Args:
        on: `inputs` moves the tokens' embeddings. `activations` moves each layer's heads, each MLP and the
            embeddings in separate runs, and takes the edges that leave them from these runs.
        steps: points on the path.
        rows: pairs in one batch.
        progress: called with the number of pairs done and the number of all pairs.

    Raises:
        UserError: fewer than one step, or another value of `on`.

    Cost: as `eap`, with the backward part `steps` times; on activations, `steps * (2 * layers + 1)` times.
    """

    def score(model: Model, both: Pairs) -> Tensor:
        metric = partial(log_odds, pairs=both)
        return eap_ig_scores(model, both.clean, both.corrupted, metric, on=on, steps=steps)

    scorer, settings = edge_scorer(score), {"on": on, "steps": steps}
    found = contrast_items(model, case, scorer, method="eap_ig", rows=rows, settings=settings, progress=progress)
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

    Args:
        rule: the published code uses `left` for edges, `right` for nodes and activations, and `ends` with two steps
            for what it calls clean-corrupted.
        convention: on activations, `eap-ig` averages an edge's gradient over the runs in which any source moves, as
            the published code does.
    """
    if on not in get_args(On):
        raise UserError(f"on={on!r} cannot be integrated over; choose one of {', '.join(get_args(On))}.")
    shares, moved = integration_points(steps, rule), source_points(model)[: 1 if on == "inputs" else None]
    here, there = (record(model, batch, moved).activations for batch in (clean, corrupted))
    mask = clean.mask * corrupted.mask

    def at(name: str, share: float) -> Tensor:
        hooks = [(name, interpolate(here[name], there[name], mask, share))]
        run = record(model, clean, points(model), grad=True, hooks=hooks)
        return edge_effects(model, run, change, metric(run.logits))

    with torch.enable_grad():
        change = source_changes(model, record(model, clean, points(model), grad=True), clean, corrupted)
        means = [torch.stack([at(name, share) for share in shares]).mean(0) for name in moved]
    if on == "inputs" or convention == "eap-ig":
        return torch.stack(means).mean(0)
    return torch.cat([mean[:, part] for mean, part in zip(means, _sources(model), strict=True)], 1)


def _sources(model: Model) -> list[slice]:
    """The sources of each entry of `source_points(model)`."""
    sizes = [1, *(n for _ in range(model.n_layers) for n in (model.n_heads, 1))]
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
