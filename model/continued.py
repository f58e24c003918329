"""Score what may follow prompts, and read what the prompts share only once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .batch import Batch, chunks, pad, token_logprobs
from .dense import dense

if TYPE_CHECKING:
    from transformers import Cache

    from .load import Model

CALL = 16  # tokens that a forward pass costs beside those it reads, about
TOKENS = 8  # of continuations in a batch, for each prompt that one may hold
Tokens = tuple[int, ...]


@torch.no_grad()
def continued(
    model: Model, rows: Sequence[tuple[Tokens, Tokens]], *, most: int = 64, prefixes: bool = True
) -> tuple[Tensor, Tensor]:
    """Of each row, a prompt and what follows it: its log-probability `[row]`, and whether it is greedy `[row]`.

    Each distinct prompt is read once, and all that follows it continues its cached keys and values. With `prefixes`,
    prompts that begin alike are read together, and their common beginning once for all.

    Args:
        rows: tokens; neither part is empty.
        most: so many prompts in a batch.
    """
    logprob, greedy = torch.zeros(len(rows), dtype=model.dtype), torch.zeros(len(rows), dtype=torch.bool)
    tails: dict[Tokens, list[int]] = {}
    for i, (head, _) in enumerate(rows):
        tails.setdefault(head, []).append(i)
    longest = max(len(head) + len(tail) for head, tail in rows)
    together = prefixes and not _slides(model, longest)
    with dense(model):
        for prefix, heads in _gathered(sorted(tails), most) if together else [(0, [*tails])]:
            before = _read(model, heads[0][:prefix])
            for some in _alike(heads, most):
                batch = pad(model, [head[prefix:] for head in some], [1] * len(some))
                seen = _seen(model, batch, before, prefix)
                index = [(place, i) for place, head in enumerate(some) for i in tails[head]]
                for place, score, right in _followed(model, seen, [(place, rows[i][1]) for place, i in index], most):
                    row = [index[p][1] for p in place]
                    logprob[row], greedy[row] = score.cpu(), right.cpu()
    return logprob, greedy


def plain(model: Model) -> bool:
    """Whether rows can be read in parts: what stands around a model, such as a filter, may have to see them whole."""
    hf = model.hf
    bare = type(hf).__module__.startswith("transformers.") and "forward" not in vars(hf)
    return bare and not any(m._forward_hooks or m._forward_pre_hooks for m in hf.modules())


@dataclass(frozen=True)
class _Seen:
    """Prompts that were read: `logprobs` `[prompt, vocabulary]` of the next token, keys and values in `cache`, and
    which of its places are theirs, `mask` `[prompt, position]`; `next` is the next token's position `[prompt, 1]`.
    """

    logprobs: Tensor
    cache: Cache
    mask: Tensor
    next: Tensor


def _read(model: Model, prefix: Tokens) -> Cache | None:
    if not prefix:
        return None
    ids = torch.tensor([prefix], device=model.device)
    return model.hf(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values


def _seen(model: Model, batch: Batch, before: Cache | None, prefix: int) -> _Seen:
    """The rest of each prompt, behind the beginning that they share."""
    n, cache = len(batch.ids), None
    if before is not None:
        cache = copy.deepcopy(before)
        cache.batch_repeat_interleave(n)
    mask = torch.cat([batch.mask.new_ones(n, prefix), batch.mask], 1)
    positions = batch.positions + prefix
    out = model.hf(
        input_ids=batch.ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    )  # fmt: skip
    return _Seen(out.logits[:, -1].log_softmax(-1), out.past_key_values, mask, positions[:, -1:] + 1)


def _followed(
    model: Model, seen: _Seen, tails: Sequence[tuple[int, Tokens]], most: int
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Places in `tails`, given as prompt and tokens; their log-probability, and whether they are greedy.

    By length, so that none is padded to the longest.
    """
    for length in sorted({len(tail) for _, tail in tails}):
        every = [i for i, (_, tail) in enumerate(tails) if len(tail) == length]
        for part in chunks(len(every), max(1, most * TOKENS // max(1, length - 1))):
            place = every[part]
            prompt = torch.tensor([tails[i][0] for i in place], device=model.device)
            tokens = torch.tensor([tails[i][1] for i in place], device=model.device)
            logprob = seen.logprobs[prompt, tokens[:, 0]]
            greedy = seen.logprobs.argmax(-1)[prompt] == tokens[:, 0]
            if length > 1:
                more = _logits(model, seen, prompt, tokens[:, :-1])
                logprob = logprob + token_logprobs(more, tokens[:, 1:]).sum(-1)
                greedy = greedy & (more.argmax(-1) == tokens[:, 1:]).all(-1)
            yield place, logprob, greedy


def _logits(model: Model, seen: _Seen, prompt: Tensor, tokens: Tensor) -> Tensor:
    """`[row, token, vocabulary]` behind tokens `[row, token]` that continue the prompts `[row]`."""
    cache = copy.deepcopy(seen.cache)
    cache.batch_select_indices(prompt)
    return model.hf(
        input_ids=tokens,
        attention_mask=torch.cat([seen.mask[prompt], torch.ones_like(tokens)], 1),
        position_ids=seen.next[prompt] + torch.arange(tokens.shape[1], device=tokens.device),
        past_key_values=cache,
        use_cache=True,
    ).logits


def _gathered(heads: Sequence[Tokens], most: int) -> Iterator[tuple[int, Sequence[Tokens]]]:
    """Sorted prompts in groups, each with how many first tokens all of it shares.

    A group ends where taking in the next prompt would have more tokens read again than a forward pass costs.
    """
    start, shared = 0, len(heads[0]) - 1
    for i in range(1, len(heads)):
        common = min(shared, _common(heads[i - 1], heads[i]), len(heads[i]) - 1)
        if i - start == most or (i - start) * (shared - common) > CALL:
            yield _worth(shared, i - start), heads[start:i]
            start, shared = i, len(heads[i]) - 1
        else:
            shared = common
    yield _worth(shared, len(heads) - start), heads[start:]


def _worth(shared: int, n: int) -> int:
    """As many shared tokens as are worth a forward pass of their own."""
    return shared if (n - 1) * shared > CALL else 0


def _common(a: Tokens, b: Tokens) -> int:
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(a, b, strict=False)))


def _slides(model: Model, length: int) -> bool:
    """Whether attention looks back less far than that, which the padding behind a shared beginning would shift."""
    window = getattr(model.hf.config, "sliding_window", None)
    return window is not None and length > window


def _alike(heads: Sequence[Tokens], most: int) -> Iterator[list[Tokens]]:
    """Prompts in batches of alike length, with less padding in each than a forward pass costs."""
    batch: list[Tokens] = []
    for head in sorted(heads, key=len):
        if batch and (len(batch) == most or len(batch) * (len(head) - len(batch[0])) > CALL):
            yield batch
            batch = []
        batch.append(head)
    yield batch
