"""Score continuations of prompts, reading only once what the prompts share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..batch import Batch, check_fits, chunks, pad, token_logprobs
from .onednn import onednn_linear

if TYPE_CHECKING:
    from transformers import Cache

    from ..load import Model

CALL = 40  # reading the weights in a forward pass costs as much as reading this many tokens
TOKENS = 8  # a batch holds this many tokens of continuations for each prompt that it may hold
Tokens = tuple[int, ...]


@torch.no_grad()
def score_continuations(
    model: Model, rows: Sequence[tuple[Tokens, Tokens]], *, most: int = 64, prefixes: bool = True
) -> tuple[Tensor, Tensor]:
    """The log-probability of each row's continuation, `[row]`, and whether it is the greedy one, `[row]`.

    Each distinct prompt is read once, and its continuations use its cached keys and values. With `prefixes`, prompts
    that begin alike are read together, and their common beginning only once.

    Args:
        rows: each the tokens of a prompt and of its continuation, neither of them empty.
        most: the largest number of prompts in a batch.

    Raises:
        UserError: a prompt and continuation that are longer than the model's context.
    """
    logprob, greedy = (
        torch.zeros(len(rows), dtype=torch.promote_types(model.dtype, torch.float32)),
        torch.zeros(len(rows), dtype=torch.bool),
    )
    tails: dict[Tokens, list[int]] = {}
    for i, (head, _) in enumerate(rows):
        tails.setdefault(head, []).append(i)
    head, tail = max(rows, key=lambda row: len(row[0]) + len(row[1]))
    check_fits(model, [*head, *tail])
    longest = len(head) + len(tail)
    together = prefixes and not _slides(model, longest)
    with onednn_linear(model):
        for prefix, heads in _group(sorted(tails))[0] if together else [(0, [*tails])]:
            before = _read(model, heads[0][:prefix])
            for indices in _similar([len(head) for head in heads], lambda n, _: n <= most):
                alike = [heads[i] for i in indices]
                index = [i for head in alike for i in tails[head]]
                again = sum((len(tails[head]) - 1) * (len(head) - prefix) for head in alike)
                scored = _in_one if again <= CALL else _in_two
                logprob[index], greedy[index] = scored(model, [rows[i] for i in index], before, prefix, most)
    return logprob, greedy


@torch.no_grad()
def prefill(model: Model, batch: Batch, columns: int) -> tuple[Batch, Cache | None]:
    """Read a batch's first columns. Returns a batch of the other columns, and the `past` for its `logits`.

    This saves time if many passes differ only at later positions. If rows cannot be read in parts, all columns stay in
    the batch.
    """
    width = batch.ids.shape[1]
    columns = min(columns, width - batch.keep - 1)
    if columns <= 0 or not reads_in_parts(model) or _slides(model, width):
        return batch, None
    first = {name: rows[:, :columns] for name, rows in batch.inputs().items()}
    with onednn_linear(model):
        past = model.hf(**first, use_cache=True, logits_to_keep=1).past_key_values
    return replace(batch, ids=batch.ids[:, columns:], positions=batch.positions[:, columns:]), past


def reads_in_parts(model: Model) -> bool:
    """Whether rows can be read in parts. A wrapper around a model, such as a filter, may need whole rows."""
    hf = model.hf
    hooks = [h for m in hf.modules() for each in (m._forward_hooks, m._forward_pre_hooks) for h in each.values()]
    known = all(_of_transformers(hook) for hook in hooks)  # transformers records hidden states by such hooks
    return _of_transformers(type(hf)) and "forward" not in vars(hf) and known


def _of_transformers(what: object) -> bool:
    return getattr(what, "__module__", "").startswith("transformers.")


def _read(model: Model, prefix: Tokens) -> Cache | None:
    if not prefix:
        return None
    ids = torch.tensor([prefix], device=model.device)
    return model.hf(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values


def _in_one(
    model: Model, rows: Sequence[tuple[Tokens, Tokens]], before: Cache | None, prefix: int, most: int
) -> tuple[Tensor, Tensor]:
    """Score each prompt and its continuation in one row, after the prompts' common beginning."""
    parts = []
    for part in chunks(len(rows), most):
        batch = pad(model, [head[prefix:] + tail for head, tail in rows[part]], [len(tail) for _, tail in rows[part]])
        parts.append(_score(_continue(model, batch, before, prefix, keep=batch.keep + 1).logits[:, :-1], batch.labels))
    return _concatenate(parts)


def _in_two(
    model: Model, rows: Sequence[tuple[Tokens, Tokens]], before: Cache | None, prefix: int, most: int
) -> tuple[Tensor, Tensor]:
    """Read the prompts first, then all continuations, on the prompts' cached keys and values."""
    heads = list(dict.fromkeys(head for head, _ in rows))
    batch = pad(model, [head[prefix:] for head in heads], [1] * len(heads))
    seen = _continue(model, batch, before, prefix, keep=1)
    mask = torch.cat([batch.mask.new_ones(len(heads), prefix), batch.mask], 1)
    place = {head: i for i, head in enumerate(heads)}
    logprob, greedy = (
        torch.zeros(len(rows), dtype=torch.promote_types(model.dtype, torch.float32)),
        torch.zeros(len(rows), dtype=torch.bool),
    )
    for index in _similar([len(tail) for _, tail in rows], lambda n, longest: n * longest <= most * TOKENS):
        places = torch.tensor([place[rows[i][0]] for i in index], device=model.device)
        labels = _pad([rows[i][1] for i in index]).to(model.device)
        logits = seen.logits[:, -1:][places]
        if labels.shape[1] > 1:
            cache, tokens = copy.deepcopy(seen.past_key_values), labels[:, :-1].clamp(min=0)
            cache.batch_select_indices(places)
            more = model.hf(
                input_ids=tokens,
                attention_mask=torch.cat([mask[places], torch.ones_like(tokens)], 1),
                position_ids=batch.positions[places, -1:] + prefix + 1 + torch.arange(tokens.shape[1]).to(tokens),
                past_key_values=cache,
                use_cache=True,
            )
            logits = torch.cat([logits, more.logits], 1)
        logprob[index], greedy[index] = _score(logits, labels)
    return logprob, greedy


def _continue(model: Model, batch: Batch, before: Cache | None, prefix: int, *, keep: int) -> Any:
    """The model's output for rows that continue the same beginning."""
    n, cache = len(batch.ids), None
    if before is not None:
        cache = copy.deepcopy(before)
        cache.batch_repeat_interleave(n)
    return model.hf(
        input_ids=batch.ids, attention_mask=torch.cat([batch.mask.new_ones(n, prefix), batch.mask], 1),
        position_ids=batch.positions + prefix, past_key_values=cache, use_cache=True, logits_to_keep=keep,
    )  # fmt: skip


def _score(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    greedy = ((scores.argmax(-1) == labels) | (labels < 0)).all(-1)
    return token_logprobs(scores, labels).sum(-1).cpu(), greedy.cpu()


def _concatenate(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([logprob for logprob, _ in parts]), torch.cat([greedy for _, greedy in parts])


def _pad(tails: Sequence[Tokens]) -> Tensor:
    """Tokens `[row, token]`, with -100 after the shorter rows."""
    width = max(map(len, tails))
    return torch.tensor([[*tail, *[-100] * (width - len(tail))] for tail in tails])


def _group(heads: Sequence[Tokens]) -> tuple[list[tuple[int, Sequence[Tokens]]], int]:
    """Sorted prompts in groups, each with the number of first tokens that its prompts share, and the total cost.

    The cost is in tokens. Prompts that share more with each other than with the rest become a group where that costs
    less.
    """
    common = _common(heads[0], heads[-1])
    shared = min(common, min(map(len, heads)) - 1) if len(heads) > 1 else 0
    groups, rest, cost = [], [], 0
    for part in _split(heads, common) if len(heads) > 1 else [heads]:
        inner, alone = _group(part) if len(part) > 1 else ([], 0)
        if inner and alone < sum(len(head) - shared for head in part):
            groups, cost = groups + inner, cost + alone
        else:
            rest += part
    if not rest:
        return groups, cost
    if (len(rest) - 1) * shared <= CALL:
        shared = 0
    beside = CALL + shared if shared else 0
    return [*groups, (shared, rest)], cost + beside + CALL + sum(len(head) - shared for head in rest)


def _split(heads: Sequence[Tokens], common: int) -> list[Sequence[Tokens]]:
    """Sorted prompts, split where neighbours share no more than all do."""
    cuts = [i for i in range(1, len(heads)) if _common(heads[i - 1], heads[i]) == common]
    return [heads[a:b] for a, b in zip([0, *cuts], [*cuts, len(heads)], strict=True)]


def _common(a: Tokens, b: Tokens) -> int:
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(a, b, strict=False)))


def _slides(model: Model, length: int) -> bool:
    """Whether attention looks back less far than that. Padding after a shared beginning would shift its window."""
    window = getattr(model.hf.config, "sliding_window", None)
    return window is not None and length > window


def _similar(lengths: Sequence[int], fits: Callable[[int, int], bool]) -> Iterator[list[int]]:
    """Indices in batches of similar length, with less padding in each than a forward pass costs.

    `fits(n, length)`: whether a batch may hold `n` rows of this length.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        padding = len(batch) * (lengths[i] - lengths[batch[0]]) if batch else 0
        if batch and (padding > CALL or not fits(len(batch) + 1, lengths[i])):
            yield batch
            batch = []
        batch.append(i)
    yield batch
