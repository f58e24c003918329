"""Selective dampening: scale down the weights that matter far more for the forget facts than for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec, neutral_working
from ..model import Batch, Edit, Site, Slice, encode, encode_texts, logits, sliced
from .common import edit_record, target_slices
from .objectives import likelihood

if TYPE_CHECKING:
    from ..model import Model

PASSAGE = 48


@accepts_spec
def selective_dampening(
    model: Model, case: Case, sites: Iterable[Site] | None, *, alpha: float = 10.0, strength: float = 1.0
) -> Edit:
    """Selective synaptic dampening (SSD; Foster et al. 2024, arXiv:2308.07707), restricted to the sites' slices.

    If a weight is more than `alpha` times as important for the forget facts as for retain facts and neutral text, it is
    multiplied by `strength` times the inverse of that ratio, but by no more than one. Importance is the diagonal of the
    empirical Fisher information: the mean squared gradient of the loss on one fact, in its working prompts, or on one
    passage.

    Args:
        sites: the sites that may change; `None` means every weight of every block.
        alpha: the selectivity: the larger, the fewer weights are dampened.
        strength: the factor of the ratio; the paper's lambda.

    Cost: a forward and backward pass for each fact and passage of the working part.

    Raises:
        UserError: no sites, an `alpha` or `strength` that is not above zero, or a case with neither retain facts nor
            neutral text.
    """
    if not (alpha > 0 and strength > 0):
        raise UserError(f"alpha {alpha:g} and strength {strength:g} must be above zero; the paper uses 10 and 1.")
    sites = None if sites is None else list(sites)
    where = target_slices(model, sites)
    forget = [_asked(model, f) for f in case.forget.working]
    retain = [_asked(model, f) for f in case.retain.working]
    retain += [encode_texts(model, [text], limit=PASSAGE) for text in neutral_working(model, case)]
    if not retain:
        raise UserError(f"the case {case.name!r} has neither retain facts nor neutral text to compare with; add some.")
    values = [part.read(model.parameters[part.name]) for part in where]
    pairs = zip(values, importance(model, where, forget), importance(model, where, retain), strict=True)
    scaled = [dampened(v, f, r, alpha=alpha, strength=strength).cpu() for v, f, r in pairs]
    record = edit_record("selective_dampening", model, case, sites, {"alpha": alpha, "strength": strength})
    return Edit(tuple(where), tuple(scaled), model.digest(), record)


def dampened(weights: Tensor, forget: Tensor, retain: Tensor, *, alpha: float, strength: float) -> Tensor:
    """Weights scaled by `min(1, strength * retain / forget)` where `forget > alpha * retain`; all of one shape."""
    factor = torch.where(forget > alpha * retain, (strength * retain / forget).clamp(max=1.0), 1.0)
    return weights * factor.to(weights)


def importance(model: Model, where: Sequence[Slice], batches: Sequence[Batch]) -> list[Tensor]:
    """Mean square of the gradient of each batch's loss, shaped like each slice's values."""
    with sliced(model, where) as trainable, torch.enable_grad():
        sums = [torch.zeros_like(p) for p in trainable.parameters]
        for batch in batches:
            loss = likelihood(logits(model, batch), batch.labels)
            gradients = torch.autograd.grad(loss, trainable.parameters)
            sums = [total + g.detach() ** 2 for total, g in zip(sums, gradients, strict=True)]
    return [total.detach() / len(batches) for total in sums]


def _asked(model: Model, fact: Item) -> Batch:
    return encode(model, fact.prompts, [fact.answer] * len(fact.prompts))
