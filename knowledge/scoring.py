"""How well a model recalls facts: whole answers of any number of tokens, in left-padded batches."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..model import chunks, encode, encode_texts, logits, pad, token_logprobs
from .fact import Fact

if TYPE_CHECKING:
    from transformers import Cache

    from ..model import Batch, Model

ROWS = 64


@dataclass(frozen=True)
class Scores:
    """Of each row: `logprob` of the whole answer `[n]`, and whether greedy decoding gives it, `greedy` `[n]`."""

    logprob: Tensor
    greedy: Tensor


@torch.no_grad()
def score(model: Model, prompts: Sequence[str], answers: Sequence[str], *, rows: int = ROWS) -> Scores:
    """Score answers behind prompts. One forward pass over all rows, `rows` at a time."""
    logprob, greedy = [], []
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(answers[i]))
    for part in chunks(len(order), rows):
        batch = encode(model, [prompts[i] for i in order[part]], [answers[i] for i in order[part]])
        out = logits(model, batch)
        logprob.append(token_logprobs(out, batch.labels).sum(-1))
        greedy.append(((out.argmax(-1) == batch.labels) | (batch.labels < 0)).all(-1))
    back = torch.tensor(order).argsort()
    return Scores(torch.cat(logprob).cpu()[back], torch.cat(greedy).cpu()[back])


def recalled(model: Model, facts: Sequence[Fact]) -> list[bool]:
    """Whether greedy decoding behind each fact's prompt gives its whole answer, or an alias."""
    rows = [(i, f.prompt, a) for i, f in enumerate(facts) for a in f.answers]
    right = [False] * len(facts)
    if rows:
        greedy = score(model, [p for _, p, _ in rows], [a for _, _, a in rows]).greedy.tolist()
        for (i, _, _), ok in zip(rows, greedy, strict=True):
            right[i] |= ok
    return right


@torch.no_grad()
def pool_probability(model: Model, facts: Sequence[Fact], pool: Sequence[str], *, rows: int = ROWS) -> Tensor:
    """Probability of the right answer among a pool of answers, `[n]`, each taken as a whole.

    The prompt is read once: all answers continue its cached keys and values. Aliases count for the
    right answer and never as rivals.
    """
    if not facts:
        return torch.zeros(0)
    logp = pool_logprobs(model, [f.prompt for f in facts], pool, rows=rows)
    out = []
    for fact, row in zip(facts, logp, strict=True):
        own = [i for i, a in enumerate(pool) if a in fact.answers]
        if not own:
            own, row = [len(row)], torch.cat([row, score(model, [fact.prompt], [fact.answer]).logprob])
        out.append(torch.logsumexp(row[own], 0) - torch.logsumexp(row, 0))
    return torch.stack(out).exp()


@torch.no_grad()
def pool_logprobs(model: Model, prompts: Sequence[str], pool: Sequence[str], *, rows: int = ROWS) -> Tensor:
    """Log-probability of every answer of a pool behind every prompt, `[prompt, answer]`."""
    heads = [model.tokenizer(p)["input_ids"] for p in prompts]
    tails = [_tail(model, prompts[0], a) for a in pool]
    return torch.cat([_continue(model, heads[part], tails) for part in chunks(len(heads), rows)])


def _tail(model: Model, prompt: str, answer: str) -> list[int]:
    return model.tokenizer(f"{prompt} {answer}")["input_ids"][len(model.tokenizer(prompt)["input_ids"]) :]


def _continue(model: Model, heads: list[list[int]], tails: list[list[int]]) -> Tensor:
    """Shared prompts once, then every answer of more than one token on their cache."""
    batch = pad(model, heads, [1] * len(heads))
    seen = model.hf(**batch.inputs(), use_cache=True, logits_to_keep=1)
    first = seen.logits[:, -1].log_softmax(-1)
    total = first[:, [t[0] for t in tails]]
    widths = sorted({len(t) - 1 for t in tails} - {0})
    for width in widths:  # by length, so that no short answer is padded to the longest
        some = [i for i, t in enumerate(tails) if len(t) == width + 1]
        cache = seen.past_key_values if width == widths[-1] else copy.deepcopy(seen.past_key_values)
        total[:, some] += _behind(model, batch, cache, torch.tensor([tails[i] for i in some]))
    return total.cpu()


def _behind(model: Model, batch: Batch, cache: Cache, tails: Tensor) -> Tensor:
    """Log-probability of answers `[answer, token]` behind each prompt but for their first token, `[prompt, answer]`."""
    n, (m, width) = len(batch.ids), tails.shape
    tails = tails.to(model.device)
    cache.batch_repeat_interleave(m)
    mask = torch.cat([batch.mask.repeat_interleave(m, 0), batch.mask.new_ones(n * m, width - 1)], 1)
    start = batch.positions[:, -1:].repeat_interleave(m, 0) + 1
    positions = start + torch.arange(width - 1, device=model.device)
    out = model.hf(
        input_ids=tails[:, :-1].repeat(n, 1), attention_mask=mask, position_ids=positions, past_key_values=cache,
        use_cache=True,
    )  # fmt: skip
    return token_logprobs(out.logits, tails[:, 1:].repeat(n, 1)).sum(-1).view(n, m)


@torch.no_grad()
def text_loss(model: Model, texts: Sequence[str], *, rows: int = 8) -> Tensor:
    """Mean negative log-probability of a token of each text, `[n, 2]`: the sum over tokens, and their number."""
    out = []
    for part in chunks(len(texts), rows):
        batch = encode_texts(model, texts[part])
        logp = token_logprobs(logits(model, batch), batch.labels)
        out.append(torch.stack([-logp.sum(-1), (batch.labels >= 0).sum(-1).float()], -1).cpu())
    return torch.cat(out)
