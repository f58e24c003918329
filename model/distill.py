"""What a model says at chosen places, remembered in little space, and how far another has come from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .batch import Batch, logits

if TYPE_CHECKING:
    from .load import Model

WIDTH = 64


@dataclass(frozen=True)
class Memory:
    """Next-token distributions of a model at a batch's `n` labelled positions.

    `tokens`, `logprobs`: `[n, width]`, the likeliest tokens and their log-probabilities; `rest`: `[n]`,
    the log-probability of all others together. The label is always among the tokens. `answers`: `[n]`, the
    labels' own log-probabilities, whether they were taken out or not. `instead`: the same rows with other answers,
    or other distributions behind the same ones. `states`: `[row, keep, 2, d_model]`, residual states there, the
    model's own and others to move to.
    """

    batch: Batch
    tokens: Tensor
    logprobs: Tensor
    rest: Tensor
    answers: Tensor
    instead: Memory | None = None
    states: Tensor | None = None

    @property
    def reference(self) -> Tensor:
        """`answers` in the places of their labels, `[row, keep]`, 0 where nothing is asked."""
        labels = self.batch.labels
        return torch.zeros(labels.shape, dtype=self.answers.dtype, device=labels.device).masked_scatter(
            labels >= 0, self.answers
        )

    def rows(self, rows: Sequence[int]) -> Memory:
        """What is remembered of some of the batch's rows, in the batch's order."""
        index = torch.tensor(sorted(rows), device=self.batch.ids.device)
        batch = self.batch
        owner = (batch.labels >= 0).nonzero()[:, 0]
        own = torch.isin(owner, index)
        instead = self.instead and self.instead.rows(rows)
        states = None if self.states is None else self.states[index]
        return Memory(
            batch.rows(index), self.tokens[own], self.logprobs[own], self.rest[own], self.answers[own], instead, states
        )


@torch.no_grad()
def remember(model: Model, batch: Batch, *, without_answer: bool = False, width: int = WIDTH) -> Memory:
    """One forward pass. With `without_answer`, each position's label is taken out and the rest renormalised."""
    asked = batch.labels >= 0
    scores = logits(model, batch)[asked]
    memory = memorize(batch, scores, width=width)
    if not without_answer:
        return memory
    taken = memorize(batch, scores.scatter(-1, batch.labels[asked][:, None], -1e4), width=width)
    return replace(taken, answers=memory.answers)


@torch.no_grad()
def memorize(batch: Batch, scores: Tensor, *, width: int = WIDTH) -> Memory:
    """The same of logits `[n, vocabulary]` at the batch's labels, whoever gave them."""
    labels = batch.labels[batch.labels >= 0][:, None]
    logp = scores.float().log_softmax(-1)
    answers = logp.gather(-1, labels)[:, 0]
    ranked = logp.scatter(-1, labels, float("inf")).topk(min(width, logp.shape[-1] - 1)).indices
    kept = logp.gather(-1, ranked)
    rest = (1 - kept.exp().sum(-1)).clamp(min=1e-9).log()
    return Memory(batch, ranked, kept, rest, answers)


def divergence(model: Model, memory: Memory) -> Tensor:
    """Mean Kullback-Leibler divergence from what is remembered to what the model says now, in nats a token.

    The tokens that were not kept count as one, which makes it a lower bound.
    """
    return divergence_of(logits(model, memory.batch)[memory.batch.labels >= 0], memory)


def divergence_of(scores: Tensor, memory: Memory) -> Tensor:
    """The same for logits `[n, vocabulary]` that were computed already."""
    logp = scores.float().log_softmax(-1)
    kept = logp.gather(-1, memory.tokens)
    rest = (1 - kept.exp().sum(-1)).clamp(min=1e-9).log()
    inside = (memory.logprobs.exp() * (memory.logprobs - kept)).sum(-1)
    return (inside + memory.rest.exp() * (memory.rest - rest)).mean()
