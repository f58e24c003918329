"""Generate text after prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import NotFiniteError
from ..batch import chunks, context, pad
from ..ends import end_ids
from ..tokens import token_ids
from .onednn import onednn_linear

if TYPE_CHECKING:
    from ..load import Model


def continuations(
    model: Model, prompts: Sequence[str], *, tokens: int, seed: int | None = None, rows: int = 64
) -> list[str]:
    """The model's continuation of each prompt, up to the end of sequence or of the model's context, stripped.

    Args:
        tokens: the largest number of tokens in a continuation.
        seed: the seed for samples at temperature one; with `None`, decoding is greedy.

    Raises:
        NotFiniteError: the model's logits are NaN.
        UserError: a prompt that is longer than the model's context.

    Cost: `tokens` forward passes over one token per row, with cached keys and values, and one over each distinct
    prompt.
    """
    generator = None if seed is None else torch.Generator(model.device).manual_seed(seed)
    texts: list[str] = []
    for part in chunks(len(prompts), rows):
        with onednn_linear(model):
            ids = _continue(model, prompts[part], tokens, generator)
        texts += model.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [t.strip() for t in texts]


@torch.no_grad()
def _continue(model: Model, prompts: Sequence[str], tokens: int, generator: torch.Generator | None) -> list[list[int]]:
    distinct = list(dict.fromkeys(prompts))  # a repeated prompt is read once
    row = torch.tensor([distinct.index(p) for p in prompts], device=model.device)
    heads = token_ids(model, distinct)
    batch = pad(model, heads, [1] * len(heads))
    ids, mask, positions, cache = batch.ids, batch.mask, batch.positions, None
    out: list[Tensor] = []
    most = context(model)
    room = torch.tensor([most - len(heads[i]) + 1 for i in row.tolist()], device=model.device)  # tokens to come
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=model.device)
    for _ in range(tokens):
        step = model.hf(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        scores = step.logits[:, -1].float()
        if cache is None:
            step.past_key_values.batch_select_indices(row)
            scores, mask, positions = scores[row], mask[row], positions[row]
        cache = step.past_key_values
        if scores.isnan().any():
            raise NotFiniteError(f"the logits of {model.name} are NaN, so nothing can be generated; check its weights.")
        ids = torch.multinomial(scores.softmax(-1), 1, generator=generator) if generator else scores.argmax(-1, True)
        out.append(ids[:, 0])
        ended |= torch.isin(ids[:, 0], _ends(model)) | (len(out) >= room)
        if ended.all():
            break
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
        positions = (positions[:, -1:] + 1).clamp(max=most - 1)  # of rows that have ended
    found = torch.stack(out, 1)
    return [_until_end(ids[:n], _ends(model)).tolist() for ids, n in zip(found, room.tolist(), strict=True)]


def _ends(model: Model) -> Tensor:
    return torch.tensor(end_ids(model.hf, model.tokenizer), dtype=torch.long, device=model.device)


def _until_end(row: Tensor, ends: Tensor) -> Tensor:
    stops = torch.isin(row, ends).nonzero()
    return row[: int(stops[0])] if len(stops) else row
