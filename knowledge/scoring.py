"""Scores of how well a model recalls items: whole answers of any length, in left-padded batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._util.errors import UserError
from ..model import chunks, encode, encode_texts, logits, split, token_logprobs
from ..model.run.prefix_cache import reads_in_parts, score_continuations
from .item import Item
from .kinds import kind_of
from .rivals import whole_answers

if TYPE_CHECKING:
    from ..model import Model

ROWS = 64
KNOWN = 0.5
Encoded = list[tuple[list[int], list[int]]]  # the tokens of a prompt and of each answer


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


def recalled(model: Model, items: Sequence[Item]) -> list[bool]:
    """Whether greedy decoding after each item's prompt gives its whole answer, or an alias, and no rival."""
    return [value == 1 for value in answered(model, items)]


def answered(model: Model, items: Sequence[Item]) -> list[float]:
    """`recalled` as 1 or 0; NaN where the model's numbers are not finite, so that nothing is decoded."""
    rows = [(i, f.prompt, a) for i, f in enumerate(items) for a in (*f.answers, *f.longer)]
    found = score(model, [p for _, p, _ in rows], [a for _, _, a in rows])
    longest, broken = [""] * len(items), set()
    for (i, _, text), greedy, logp in zip(rows, found.greedy.tolist(), found.logprob.tolist(), strict=True):
        if math.isnan(logp):
            broken.add(i)
        if greedy and len(text) > len(longest[i]):
            longest[i] = text
    return [math.nan if i in broken else float(longest[i] in f.answers) for i, f in enumerate(items)]


def shown(model: Model, items: Sequence[Item]) -> list[float]:
    """How far a model shows that it knows each item, 0 to 1.

    A fact: 1 if greedy decoding gives its whole answer. Any other kind: the probability of the right answer among the
    item's own pool. NaN where the model's numbers are not finite.

    Cost: one row for each fact, alias and rival, and one for each answer of another item's pool.
    """
    out = [0.0] * len(items)
    greedy = [i for i, item in enumerate(items) if kind_of(item).greedy]
    others = [i for i, item in enumerate(items) if not kind_of(item).greedy]
    for i, right in zip(greedy, answered(model, [items[i] for i in greedy]), strict=True):
        out[i] = right
    for i, p in zip(others, own_pool_probability(model, [items[i] for i in others]).tolist(), strict=True):
        out[i] = p
    return out


def known(model: Model, items: Sequence[Item]) -> list[bool]:
    """Whether a model knows each item: `shown` exceeds a half, which NaN does not."""
    return [value > KNOWN for value in shown(model, items)]


def shown_rows(items: Sequence[Item]) -> int:
    """The cost of `shown`, in rows."""
    return sum(len(i.answers) + len(i.longer) if kind_of(i).greedy else len(i.pool) for i in items)


def own_pool_probability(model: Model, items: Sequence[Item], *, rows: int = ROWS) -> Tensor:
    """Probability of each item's answer among the answer and its foils, as `comparable` compares them, `[n]`.

    Raises:
        UserError: an item without foils, which has nothing to be compared with.
    """
    if not items:
        return torch.zeros(0)
    if alone := next((i for i in items if not i.foils), None):
        raise UserError(
            f"the answer {alone.answer[:60]!r} has nothing to be compared with; give wrong answers, or name a set of "
            "never-taught items of the same kind under twins."
        )
    return torch.stack([logp.softmax(0)[0] for logp in own_pool_scores(model, items, rows=rows)])


def own_pool_scores(model: Model, items: Sequence[Item], *, rows: int = ROWS) -> list[Tensor]:
    """For each item, the `comparable` log-probability of its answer and of each foil, `[answer]`."""
    return [comparable(i, *found) for i, found in zip(items, own_pool_rows(model, items, rows=rows), strict=True)]


def comparable(item: Item, tokens: Encoded, logprobs: Tensor) -> Tensor:
    """Log-probabilities by which an item's answers are compared, `[answer]`, in double precision.

    Of long answers, the mean per token, so that no length is favoured; of others, each as a whole (`whole_answers`).
    """
    if kind_of(item).long:
        return logprobs.double() / torch.tensor([len(tail) for _, tail in tokens])
    return whole_answers(tokens, logprobs).double()


@torch.no_grad()
def own_pool_rows(model: Model, items: Sequence[Item], *, rows: int = ROWS) -> list[tuple[Encoded, Tensor]]:
    """For each item, the tokens and the log-probability of its answer and of each foil, `[answer]`."""
    prompts, answers = [i.prompt for i in items for _ in i.pool], [a for i in items for a in i.pool]
    tokens, logprob = iter(split(model, prompts, answers)), score(model, prompts, answers, rows=rows).logprob
    sizes = [len(i.pool) for i in items]
    return [(list(islice(tokens, n)), part) for n, part in zip(sizes, logprob.split(sizes), strict=True)]


@torch.no_grad()
def pool_probability(model: Model, items: Sequence[Item], pool: Sequence[str], *, rows: int = ROWS) -> Tensor:
    """Probability of the right answer among a pool of answers, `[n]`, each taken as a whole.

    A prompt is read once: all answers continue its cached keys and values. Aliases count for the
    right answer, never as rivals.
    """
    if not items:
        return torch.zeros(0)
    out = []
    for item, (tokens, row) in zip(items, _pool_rows(model, [f.prompt for f in items], pool, rows), strict=True):
        own = [i for i, a in enumerate(pool) if a in item.answers]
        if not own:
            own, row = [len(row)], torch.cat([row, score(model, [item.prompt], [item.answer]).logprob])
            tokens += split(model, [item.prompt], [item.answer])
        row = whole_answers(tokens, row)
        out.append(torch.logsumexp(row[own], 0) - torch.logsumexp(row, 0))
    return torch.stack(out).exp()


@torch.no_grad()
def pool_logprobs(model: Model, prompts: Sequence[str], pool: Sequence[str], *, rows: int = ROWS) -> Tensor:
    """Log-probability of every answer of a pool after every prompt, `[prompt, answer]`, each taken as a whole."""
    return torch.stack([whole_answers(*found) for found in _pool_rows(model, prompts, pool, rows)])


def _pool_rows(model: Model, prompts: Sequence[str], pool: Sequence[str], rows: int) -> list[tuple[Encoded, Tensor]]:
    """For each prompt, the tokens and the log-probability of every answer of a pool, `[answer]`."""
    both = split(model, [p for p in prompts for _ in pool], [*pool] * len(prompts))
    tokens = [(tuple(head), tuple(tail)) for head, tail in both]
    logprob = score_continuations(model, tokens, most=rows, prefixes=reads_in_parts(model))[0]
    each = iter(both)
    return [(list(islice(each, len(pool))), part) for part in logprob.view(len(prompts), len(pool))]


@torch.no_grad()
def text_loss(model: Model, texts: Sequence[str], *, rows: int = 8) -> Tensor:
    """Mean negative log-probability of a token of each text, `[n, 2]`: the sum over tokens, and their number."""
    out = []
    for part in chunks(len(texts), rows):
        batch = encode_texts(model, texts[part])
        logp = token_logprobs(logits(model, batch), batch.labels)
        out.append(torch.stack([-logp.sum(-1), (batch.labels >= 0).sum(-1).float()], -1).cpu())
    return torch.cat(out)
