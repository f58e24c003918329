"""Texts longer than a model's context, in overlapping windows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..._util.errors import UserError
from .tokens import precise


def window_logprobs(hf: nn.Module, ids: Tensor, *, context: int | None = None, stride: int | None = None) -> Tensor:
    """The log-probabilities of the vocabulary for every token but the first, `[position - 1, vocabulary]`.

    A text that fits is read once. A longer text is read in windows of at most `context` tokens that end `stride` tokens
    apart. Each window scores only the tokens that no earlier window scored, so every token has as long a context as
    fits. The result is part of the autograd graph if gradients are on.

    Args:
        hf: a causal model of transformers.
        ids: one text's tokens, `[position]`, without padding.
        context: the largest number of tokens in a window. Default: all.
        stride: the number of tokens between the ends of two windows. Default: half of `context`.

    Raises:
        UserError: fewer than two tokens, or a stride outside 1 to `context - 1`.
    """
    n = len(ids)
    context = context or n
    stride = context // 2 if stride is None else stride
    if n < 2 or (n > context and not 0 < stride < context):
        raise UserError(
            f"{n} tokens do not fit windows of {context} and stride {stride}; give at least two tokens, and a stride "
            "from 1 to less than the window, so that every token has one before it."
        )
    rows = []
    for start, first, end in [(0, 1, n)] if n <= context else _windows(n, context, stride):
        logits = hf(input_ids=ids[None, start:end], use_cache=False).logits[0]
        rows.append(precise(logits[first - start - 1 : end - start - 1]).log_softmax(-1))
    return torch.cat(rows)


def _windows(n: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """The start of each window, the first token that it scores, and its end."""
    for first in range(0, n, stride):
        end = min(first + stride, n)
        yield max(0, first + stride - context), max(1, first), end
