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
def mark_general(model: Model, case: Case, found: Localization) -> Localization:
    """Mark the 1% of a part's sites that neutral text needs most; `found.top` then gives them last.

    A contrast between facts does not show these sites. It subtracts what a site does for both groups of facts, but not
    what the site does for all other text. Some neurons carry massive activations (Sun et al. 2024, arXiv:2402.17762);
    zeroing them ruins any text. Parts without activations of their own, such as whole MLPs, are not marked.

    Returns:
        The same localization with the column `general` filled in.

    Cost: that of `general_importance`, once for each part.
    """
    frame = found.to_frame()
    parts: list[Part] = [part for part in WITH_ACTIVATIONS if part in found.parts]
    for part in parts:
        needed = _most_needed(general_importance(model, case, part), SHARE)
        rows = frame["part"] == part
        layer, index = (frame.loc[rows, c].to_numpy(int) for c in ("layer", "index"))
        frame.loc[rows, "general"] = needed[layer, index]
    return Localization(frame, found.record)


@accepts_spec
def exclude_general(
    model: Model, case: Case, sites: Iterable[Site], *, share: float = SHARE, passages: int = PASSAGES
) -> list[Site]:
    """Leave out the sites that neutral text needs most; the others keep their order.

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
    needed = {
        part: _most_needed(general_importance(model, case, part, passages=passages), share) for part in sorted(parts)
    }
    return [s for s in sites if not needed[s.part][s.layer, model.unit(s)]]


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


def _most_needed(importance: np.ndarray, share: float) -> np.ndarray:
    return importance > np.quantile(importance, 1 - share)


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
