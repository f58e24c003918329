"""Scores of how well a model recalls facts: whole answers of any length, in left-padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..model import chunks, encode, encode_texts, logits, token_logprobs
from ..model.batch import split
from ..model.run.prefix_cache import reads_in_parts, score_continuations
from .fact import Fact

if TYPE_CHECKING:
    from ..model import Model

ROWS = 64


@dataclass(frozen=True)
class Scores:
    """For each row: `logprob` of the whole answer `[n]`, and `greedy` `[n]`, whether greedy decoding gives it."""

    logprob: Tensor
    greedy: Tensor


@torch.no_grad()
def score(model: Model, prompts: Sequence[str], answers: Sequence[str], *, rows: int = ROWS) -> Scores:
    """Score the answers that follow prompts, `rows` prompts at a time.

    A repeated prompt is read once. So is a beginning that prompts share, unless a wrapper around the model may need
    whole inputs (`reads_in_parts`).

    Cost: one forward pass over all distinct prompts, and over the answers of more than one token.
    """
    if not prompts:
        return Scores(torch.zeros(0, dtype=model.dtype), torch.zeros(0, dtype=torch.bool))
    if reads_in_parts(model):
        tokens = [(tuple(head), tuple(tail)) for head, tail in split(model, prompts, answers)]
        return Scores(*score_continuations(model, tokens, most=rows))
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
    """Whether greedy decoding after each fact's prompt gives its whole answer, or an alias."""
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

    A prompt is read once: all answers continue its cached keys and values. Aliases count for the
    right answer, never as rivals.
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
    """Log-probability of every answer of a pool after every prompt, `[prompt, answer]`."""
    both = [(p, a) for p in prompts for a in pool]
    tokens = [(tuple(head), tuple(tail)) for head, tail in split(model, [p for p, _ in both], [a for _, a in both])]
    return score_continuations(model, tokens, most=rows, prefixes=reads_in_parts(model))[0].view(
        len(prompts), len(pool)
    )


@torch.no_grad()
def text_loss(model: Model, texts: Sequence[str], *, rows: int = 8) -> Tensor:
    """Mean negative log-probability of a token of each text, `[n, 2]`: the sum over tokens, and their number."""
    out = []
    for part in chunks(len(texts), rows):
        batch = encode_texts(model, texts[part])
        logp = token_logprobs(logits(model, batch), batch.labels)
        out.append(torch.stack([-logp.sum(-1), (batch.labels >= 0).sum(-1).float()], -1).cpu())
    return torch.cat(out)
