"""Prompts and their answers as padded tensors."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._util.errors import UserError
from .run.onednn import onednn_linear
from .tokens import split, token_ids

if TYPE_CHECKING:
    from transformers import Cache

    from .load import Model


@dataclass(frozen=True)
class Batch:
    """Left-padded token rows.

    `ids`, `mask`, `positions`: `[row, position]`. `labels`: `[row, keep]`, the last `keep` tokens of each row where
    they are to be predicted, else -100. `logits(model, batch)` gives `[row, keep, vocabulary]` for exactly these. After
    `prefill`, the mask still has the columns that were read.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    labels: Tensor

    @property
    def keep(self) -> int:
        return self.labels.shape[1]

    @property
    def tokens(self) -> int:
        """The number of tokens that are not padding."""
        return int(self.mask.sum())

    def rows(self, index: slice | Tensor) -> Batch:
        """A batch of some of the rows."""
        return Batch(self.ids[index], self.mask[index], self.positions[index], self.labels[index])

    def inputs(self) -> dict[str, Tensor]:
        return {"input_ids": self.ids, "attention_mask": self.mask, "position_ids": self.positions}


def encode(model: Model, prompts: Sequence[str], answers: Sequence[str]) -> Batch:
    """Rows of prompts and their answers (`prompt.join`), with labels on the answers' tokens."""
    rows = split(model, prompts, answers)
    return pad(model, [p + a for p, a in rows], [len(a) for _, a in rows])


def encode_texts(model: Model, texts: Sequence[str], *, limit: int | None = None) -> Batch:
    """Rows of plain text, with a label on every token but the first. With a `limit`, longer texts are cut there.

    Raises:
        UserError: a text that is longer than the model's context.
    """
    rows = [ids[:limit] for ids in token_ids(model, texts)]
    return pad(model, rows, [len(r) - 1 for r in rows])


def pad(model: Model, rows: Sequence[Sequence[int]], asked: Sequence[int]) -> Batch:
    """Left-pad rows of tokens. The last `asked[i]` tokens of row i become labels.

    Raises:
        UserError: no rows, or one that is longer than the model's context.
    """
    if not rows:
        raise UserError("there is nothing to run: give at least one prompt.")
    check_fits(model, max(rows, key=len))
    width, keep = max(map(len, rows)), max(asked)
    filler = model.pad_id
    ids = torch.full((len(rows), width), filler)
    mask = torch.zeros_like(ids)
    labels = torch.full((len(rows), keep), -100)
    for i, (row, n) in enumerate(zip(rows, asked, strict=True)):
        tokens = torch.tensor(row)
        ids[i, width - len(row) :] = tokens
        mask[i, width - len(row) :] = 1
        if n:
            labels[i, keep - n :] = tokens[-n:]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return Batch(*(t.to(model.device) for t in (ids, mask, positions, labels)))


def check_fits(model: Model, ids: Sequence[int] | Tensor, more: int = 0) -> None:
    """Refuse a text that, with `more` tokens before it, is longer than the model's context.

    Raises:
        UserError: it is longer.
    """
    if (width := len(ids) + more) > (most := context(model)):
        start = model.tokenizer.decode([int(i) for i in ids[:12]])
        raise UserError(
            f"a text of {width} tokens ({start!r}...) does not fit the context of {model.name}, {most} tokens; shorten "
            "it or divide it."
        )


def logits(model: Model, batch: Batch, past: Cache | None = None) -> Tensor:
    """Next-token logits `[row, keep, vocabulary]` where the batch has labels.

    Only these positions are unembedded. `past` is the cache that `prefill` filled; it is not changed.
    """
    cache = {"use_cache": False} if past is None else {"use_cache": True, "past_key_values": copy.deepcopy(past)}
    with onednn_linear(model):
        out = model.hf(**batch.inputs(), **cache, logits_to_keep=batch.keep + 1)
    return out.logits[:, :-1]


def token_logprobs(scores: Tensor, labels: Tensor) -> Tensor:
    """The log-probability of each label, `[row, keep]` in float32 or better, and 0 where there is no label."""
    asked = labels >= 0
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    picked = exact.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return torch.where(asked, picked, 0.0)


def chunks(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover `range(n)`. Raises `UserError` for a size under 1."""
    if size < 1:
        raise UserError(f"rows={size} is not a batch size; give 1 or more.")
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def context(model: Model) -> int:
    """The largest number of tokens that the model reads at once."""
    config = model.hf.config
    return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or sys.maxsize
