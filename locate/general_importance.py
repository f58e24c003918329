"""Sites that general text needs, and that an edit should therefore leave alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec, neutral_working
from ..model import Model, Part, Site, chunks, encode_texts, token_logprobs
from ..model.run.hooks import point, record
from .localization import Localization

SHARE = 0.01
PASSAGES = 32
TOKENS = 48
ROWS = 8
WITH_ACTIVATIONS: tuple[Part, ...] = ("neuron", "head")


@accepts_spec
def choose_sites(
    model: Model, case: Case, found: Localization, k: int, *, part: Part = "neuron", by: str = "score"
) -> list[Site]:
    """The best `k` sites of a part, as an edit takes them: those that neutral text needs most come last.

    Of parts without activations of their own, such as whole MLPs, these are the best as `found.top` gives them.

    Args:
        by: the column to rank by.

    Raises:
        UserError: a part without scores, fewer than `k` sites, or no such column.

    Cost: that of `general_importance`.
    """
    best = found.top(k, part=part, by=by)
    if part not in WITH_ACTIVATIONS:
        return best
    every = found.top(found.grid(part).size, part=part, by=by)
    kept = exclude_general(model, case, every)
    last = set(every) - set(kept)
    return [*kept, *(site for site in every if site in last)][:k]


@accepts_spec
def exclude_general(
    model: Model, case: Case, sites: Iterable[Site], *, share: float = SHARE, passages: int = PASSAGES
) -> list[Site]:
    """Leave out the sites that neutral text needs most; the others keep their order.

    A contrast between facts does not show these sites. It subtracts what a site does for both groups of facts, but not
    what the site does for all other text. Some neurons carry massive activations (Sun et al. 2024,
    arXiv:2402.17762); zeroing them ruins any text.

    Args:
        share: the share of each part's sites to leave out.
        passages: how many passages of neutral text to read.

    Raises:
        UserError: a share outside 0 and 1, or a part without activations of its own.

    Cost: that of `general_importance`, once for each part.
    """
    if not 0 <= share < 1:
        raise UserError(f"share={share} is not a share of sites; give at least 0 and less than 1, such as {SHARE}.")
    sites = list(sites)
    parts: set[Part] = {s.part for s in sites}
    grids = {part: general_importance(model, case, part, passages=passages) for part in sorted(parts)}
    limits = {part: float(np.quantile(grid, 1 - share)) for part, grid in grids.items()}
    return [s for s in sites if grids[s.part][s.layer, model.unit(s)] <= limits[s.part]]


@accepts_spec
def general_importance(model: Model, case: Case, part: Part = "neuron", *, passages: int = PASSAGES) -> np.ndarray:
    """How much neutral text needs each unit of a part: the mean size of gradient times activation.

    To first order, this is how much a token's activation changes the loss on the passage. Sizes are averaged, so that
    opposite signs do not cancel. The function reads working neutral text only, with the weights as they are.

    Returns:
        `[layer, unit]`, in nats.

    Cost: a forward and a backward pass (no weight gradients) over `passages` of at most 48 tokens, once for a model.
    """
    texts = tuple(neutral_working(model, case)[:passages])
    return model.cache.get("general importance", (part, texts, model.digest()), lambda: _importance(model, texts, part))


def _importance(model: Model, texts: Sequence[str], part: Part) -> np.ndarray:
    parts = [_importance_sums(model, texts[rows], part) for rows in chunks(len(texts), ROWS)]
    total = torch.stack([sums for sums, _ in parts]).sum(0) / sum(tokens for _, tokens in parts)
    return total.cpu().numpy()


@torch.enable_grad()
def _importance_sums(model: Model, texts: Sequence[str], part: Part) -> tuple[Tensor, int]:
    """Sums `[layer, unit]` over the tokens of these texts, and the number of tokens."""
    batch = encode_texts(model, texts, limit=TOKENS)
    names = [point(part, layer) for layer in range(model.n_layers)]
    run = record(model, batch, names, grad=True)
    loss = -token_logprobs(run.logits, batch.labels).sum()
    grads = torch.autograd.grad(loss, [run.activations[n] for n in names])
    products = [(run.activations[n].detach() * g).double() for n, g in zip(names, grads, strict=True)]
    units = [s.sum(-1) if s.ndim == 4 else s for s in products]  # a head is one unit
    return torch.stack([(s.abs() * batch.mask[..., None]).sum((0, 1)) for s in units]), batch.tokens
