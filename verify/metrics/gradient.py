"""How much a text would still change the weights: the gradient norm as a membership attack.

As defined in MIMIR, Duan et al. 2024, arXiv:2402.07841.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..._util.errors import UserError
from ...model import token_logprobs
from .conventions import MIMIR, OPEN_UNLEARNING, STATED, check_convention
from .tokens import scored
from .windows import window_logprobs


def grad_norm_score(
    hf: nn.Module, ids: Tensor, labels: Tensor, *, p: float = 2.0, context: int | None = None, convention: str = STATED
) -> float:
    """Minus the mean over weight tensors of the p-norm of the gradient of the mean token loss.

    Higher is more familiar, because a learned text has a smaller gradient. The weights and their gradients stay
    unchanged.

    Args:
        hf: a causal model of transformers.
        ids: one text's tokens, `[position]`, without padding.
        labels: `[position]`, the token itself where its loss counts, -100 elsewhere. The first token has no loss.
        p: the order of the norm; `float("inf")` for the largest entry.
        context: longer texts are read in windows of this many tokens (`window_logprobs`). Default: no windows.
        convention: `open-unlearning` leaves out the last label and has the opposite sign, that of a loss. `mimir` is
            the same as ours, although its other scores are losses.

    Raises:
        UserError: an unknown convention, or no label that counts.
    """
    check_convention(convention, OPEN_UNLEARNING, MIMIR)
    asked = labels[None, 1:]
    counted = scored(asked, convention=STATED if convention == MIMIR else convention)
    if not counted.any():
        raise UserError("No label of this text counts, so its loss has no gradient; give it more tokens.")
    with _on_graph(hf) as weights:
        loss = -token_logprobs(window_logprobs(hf, ids, context=context)[None], asked)[counted].mean()
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    norms = [torch.linalg.vector_norm(g, ord=p) for g in gradients if g is not None]
    norm = float(torch.stack(norms).mean())
    return norm if convention == OPEN_UNLEARNING else -norm


@contextmanager
def _on_graph(hf: nn.Module) -> Iterator[list[nn.Parameter]]:
    """All weights, with gradients on while the context lasts; no gradient is stored in them."""
    weights = list(hf.parameters())
    before = [w.requires_grad for w in weights]
    try:
        for w in weights:
            w.requires_grad_(True)
        with torch.enable_grad():
            yield weights
    finally:
        for w, had in zip(weights, before, strict=True):
            w.requires_grad_(had)
