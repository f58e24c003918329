"""What a model says at chosen places, remembered in little space, and how far another has come from it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..batch import Batch, logits
from ..run.blocks import replace_block_outputs
from ..run.states import tapped

if TYPE_CHECKING:
    from ..load import Model

WIDTH = 64


@dataclass(frozen=True)
class Planted:
    """States `[row, d_model]` that stand in for those behind the first block, one a row `at` a position, `[row]`."""

    at: Tensor
    states: Tensor

    def into(self, layer: int, stream: Tensor) -> Tensor | None:
        """What `replace_block_outputs` asks for."""
        row = torch.arange(len(self.at), device=stream.device)
        return stream.index_put((row, self.at), self.states.to(stream)) if layer == 0 else None


@dataclass(frozen=True)
class TeacherOutputs:
    """Next-token distributions of a model at a batch's `n` labelled positions.

    `tokens`, `logprobs`: `[n, width]`, the likeliest tokens and their log-probabilities; `rest`: `[n]`,
    the log-probability of all others together. The label is always among the tokens. `answers`: `[n]`, the
    labels' own log-probabilities, whether they were taken out or not. `instead`: the same rows with other answers,
    or other distributions behind the same ones. `states`: `[row, keep, 2, d_model]`, residual states there, the
    model's own and others to move to. `stream`: `[row, position, depth, d_model]`, residual states at all positions
    behind the blocks of `depths`. `planted`: with which states in place of the model's own all this was said.
    """

    batch: Batch
    tokens: Tensor
    logprobs: Tensor
    rest: Tensor
    answers: Tensor
    instead: TeacherOutputs | None = None
    states: Tensor | None = None
    stream: Tensor | None = None
    planted: Planted | None = None

    @property
    def reference(self) -> Tensor:
        """`answers` in the places of their labels, `[row, keep]`, 0 where nothing is asked."""
        labels = self.batch.labels
        return torch.zeros(labels.shape, dtype=self.answers.dtype, device=labels.device).masked_scatter(
            labels >= 0, self.answers
        )

    def rows(self, rows: Sequence[int]) -> TeacherOutputs:
        """What is remembered of some of the batch's rows, in the batch's order."""
        index = torch.tensor(sorted(rows), device=self.batch.ids.device)
        batch = self.batch
        owner = (batch.labels >= 0).nonzero()[:, 0]
        own = torch.isin(owner, index)
        instead = self.instead and self.instead.rows(rows)
        states, stream = (None if s is None else s[index] for s in (self.states, self.stream))
        planted = self.planted and Planted(self.planted.at[index], self.planted.states[index])
        return TeacherOutputs(
            batch.rows(index), self.tokens[own], self.logprobs[own], self.rest[own], self.answers[own], instead, states,
            stream, planted,
        )  # fmt: skip


@torch.no_grad()
def remember(
    model: Model, batch: Batch, *, without_answer: bool = False, states: bool = False, width: int = WIDTH
) -> TeacherOutputs:
    """One forward pass. With `without_answer`, each position's label is taken out and the rest renormalised.

    With `states`, the `stream` is remembered, too, which takes `len(depths(model))` states a token.
    """
    asked = batch.labels >= 0
    with tapped(model, depths(model) if states else ()) as stream:
        scores = logits(model, batch)[asked]
    memory = memorize(batch, scores, width=width)
    if states:
        memory = replace(memory, stream=torch.stack(stream, 2))
    if not without_answer:
        return memory
    taken = memorize(batch, scores.scatter(-1, batch.labels[asked][:, None], -1e4), width=width)
    return replace(taken, answers=memory.answers)


@torch.no_grad()
def memorize(batch: Batch, scores: Tensor, *, width: int = WIDTH) -> TeacherOutputs:
    """The same of logits `[n, vocabulary]` at the batch's labels, whoever gave them."""
    labels = batch.labels[batch.labels >= 0][:, None]
    logp = scores.float().log_softmax(-1)
    answers = logp.gather(-1, labels)[:, 0]
    ranked = logp.scatter(-1, labels, float("inf")).topk(min(width, logp.shape[-1] - 1)).indices
    kept = logp.gather(-1, ranked)
    rest = (1 - kept.exp().sum(-1)).clamp(min=1e-9).log()
    return TeacherOutputs(batch, ranked, kept, rest, answers)


def divergence(model: Model, memory: TeacherOutputs) -> Tensor:
    """Mean Kullback-Leibler divergence from what is remembered to what the model says now, in nats a token.

    The tokens that were not kept count as one, which makes it a lower bound.
    """
    return divergence_of(scored(model, memory.batch, memory.planted), memory)


def scored(model: Model, batch: Batch, planted: Planted | None = None) -> Tensor:
    """Logits `[n, vocabulary]` at a batch's labels, with states planted if there are any."""
    with replace_block_outputs(model.hf, planted.into) if planted else nullcontext():
        return logits(model, batch)[batch.labels >= 0]


def drift(model: Model, memory: TeacherOutputs) -> tuple[Tensor, Tensor]:
    """`divergence`, and how far the `stream` has moved from what is remembered of it: no units, 0 where it has not.

    Squared distances over the squared spread of the tokens' states around their mean, meaned over depths. Left out are
    paddings and each row's first token, whose state is large, much the same in any text, and would drown the others.
    """
    assert memory.stream is not None, "`remember` keeps the stream where it is asked to"
    with tapped(model, depths(model)) as stream:
        scores = logits(model, memory.batch)
    there = memory.batch.positions > 0
    moved = []
    for now, then in zip(stream, memory.stream.unbind(2), strict=True):
        states = then[there]
        moved.append(((now[there] - states) ** 2).sum() / ((states - states.mean(0)) ** 2).sum())
    return divergence_of(scores[memory.batch.labels >= 0], memory), torch.stack(moved).mean()


def depths(model: Model) -> range:
    """Behind which blocks a stream is remembered: every quarter of the depth, rounded down, without the last block."""
    quarter = max(model.n_layers // 4, 1)
    return range(quarter - 1, max(model.n_layers - 1, 1), quarter)


def divergence_of(scores: Tensor, memory: TeacherOutputs) -> Tensor:
    """The same for logits `[n, vocabulary]` that were computed already."""
    logp = scores.float().log_softmax(-1)
    kept = logp.gather(-1, memory.tokens)
    rest = (1 - kept.exp().sum(-1)).clamp(min=1e-9).log()
    inside = (memory.logprobs.exp() * (memory.logprobs - kept)).sum(-1)
    return (inside + memory.rest.exp() * (memory.rest - rest)).mean()
