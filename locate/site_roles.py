"""Lookup or readout: where on the prompt a site has its effect.

Geva et al. 2023, "Dissecting Recall of Factual Associations", arXiv:2304.14767: early MLPs enrich the subject's tokens
with its attributes; later layers read the answer out at the last position.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec
from ..model import Model, chunks, token_ids
from ..model.run.hooks import record
from .attribution import gradient_products, hook_points
from .counterfactual import Pairs, log_odds, pairs
from .localization import Localization, Part

ROLES = ("lookup", "relay", "readout")


@accepts_spec
def label_roles(model: Model, case: Case, found: Localization, *, rows: int = 16) -> Localization:
    """Label each site by where most of its effect on the forget facts lies.

    The `role` is `lookup` at the subject's tokens, `readout` at the prompt's last token and the answer's tokens, and
    `relay` elsewhere. Effects are those of `attribution`; they keep their sign and are summed within each region.

    Args:
        found: the localization to label.
        rows: facts in one batch.

    Returns:
        The same localization with the column `role` filled in.

    Cost: two forward passes and one backward pass over the forget facts.
    """
    parts = found.parts
    facts = case.forget.working
    totals: dict[Part, np.ndarray] = {}
    for batch in chunks(len(facts), rows):
        for part, effects in _effects(model, pairs(model, case, facts[batch]), parts).items():
            totals[part] = totals.get(part, 0) + effects
    frame = found.to_frame()
    for part, total in totals.items():
        rows_of_part = frame["part"] == part
        layer, index = (frame.loc[rows_of_part, c].to_numpy(int) for c in ("layer", "index"))
        frame.loc[rows_of_part, "role"] = np.array(ROLES)[np.abs(total).argmax(0)][layer, index]
    return Localization(frame, found.record)


@torch.enable_grad()
def _effects(model: Model, both: Pairs, parts: tuple[Part, ...]) -> dict[Part, np.ndarray]:
    """Attributed effects summed over facts, `[region, layer, unit]` by part."""
    names = hook_points(model, parts)
    other = record(model, both.corrupted, names).activations
    base = record(model, both.clean, names, grad=True)
    acts = base.activations
    grads = torch.autograd.grad(log_odds(base.logits, both).sum(), [acts[n] for n in names])
    by_name = dict(zip(names, grads, strict=True))
    regions = _regions(model, both)
    out: dict[Part, list[np.ndarray]] = {part: [] for part in parts}
    for region in regions:
        change = {n: (acts[n].detach() - other[n]) * _broadcast(region, acts[n]) for n in names}
        for part, scores in gradient_products(model, parts, change, by_name, both).items():
            out[part].append(scores.sum(0))
    return {part: np.stack(scores) for part, scores in out.items()}


def _regions(model: Model, both: Pairs) -> list[Tensor]:
    """Masks `[row, position]` of the subject, of the tokens between, and of the last prompt token with the answer."""
    shape = both.clean.ids.shape
    subject, end = torch.zeros(shape), torch.zeros(shape)
    n_labels = (both.clean.labels >= 0).sum(-1).tolist()
    for row, (fact, n) in enumerate(zip(both.facts, n_labels, strict=True)):
        subject[row, _span(model, fact, int(both.clean.mask[row].sum()), shape[1])] = 1
        end[row, shape[1] - n - 1 :] = 1
    subject = subject * (1 - end)
    between = both.clean.mask.cpu() * (1 - subject) * (1 - end)
    return [m.to(both.clean.ids.device) for m in (subject, between, end)]


def _span(model: Model, fact: Item, length: int, width: int) -> slice:
    """The positions of the subject's tokens in a left-padded row."""
    if not fact.prompt.slots:
        raise UserError(
            f"no subject stands in the prompt {str(fact.prompt)!r}, so no site can look it up; label the "
            "roles of items that name their subjects."
        )
    start, end = fact.prompt.slots[-1]
    ends = (fact.prompt[:start].rstrip(), fact.prompt[:end])
    first, last = (len(ids) for ids in token_ids(model, ends))
    return slice(width - length + first, width - length + last)


def _broadcast(mask: Tensor, value: Tensor) -> Tensor:
    return mask.to(value).reshape(*mask.shape, *(1,) * (value.ndim - 2))
