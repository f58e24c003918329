"""A model's outputs at chosen positions, stored in little space, and how far another model has moved from them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..batch import Batch, logits
from ..run.blocks import replace_block_outputs

if TYPE_CHECKING:
    from ..load import Model

WIDTH = 64


@dataclass(frozen=True)
class InjectedStates:
    """States that replace the first block's output at one position of each row.

    `at`: `[row]`, the positions; `states`: `[row, d_model]`.
    """

    at: Tensor
    states: Tensor

    def rows(self, index: Tensor) -> InjectedStates:
        """The states of some rows."""
        return InjectedStates(self.at[index], self.states[index])

    def replace(self, layer: int, output: Tensor) -> Tensor | None:
        """A block's output with the states in place, as `replace_block_outputs` asks for it; `None` above the first."""
        row = torch.arange(len(self.at), device=output.device)
        return output.index_put((row, self.at), self.states.to(output)) if layer == 0 else None


@dataclass(frozen=True)
class TeacherOutputs:
    """Next-token distributions of a model at the `n` labelled positions of a batch.

    Attributes:
        tokens: `[n, width]`, the likeliest tokens; the label is always among them.
        logprobs: `[n, width]`, their log-probabilities.
        rest: `[n]`, the log-probability of all other tokens together.
        answers: `[n]`, the labels' own log-probabilities, also where the labels are taken out of the distributions.
        alternative: other distributions for the same rows, or the same prompts with other answers.
        states: `[row, keep, 2, d_model]`, the model's own residual states where the labels are, and those to move to.
        injected: the states that were in place when the model gave these outputs.
    """

    batch: Batch
    tokens: Tensor
    logprobs: Tensor
    rest: Tensor
    answers: Tensor
    alternative: TeacherOutputs | None = None
    states: Tensor | None = None
    injected: InjectedStates | None = None

    @property
    def reference(self) -> Tensor:
        """`answers` placed at their labels, `[row, keep]`, and 0 where there is no label."""
        labels = self.batch.labels
        return torch.zeros(labels.shape, dtype=self.answers.dtype, device=labels.device).masked_scatter(
            labels >= 0, self.answers
        )

    def rows(self, rows: Sequence[int]) -> TeacherOutputs:
        """The outputs for some rows of the batch, in the batch's order."""
        index = torch.tensor(sorted(rows), device=self.batch.ids.device)
        asked = torch.isin((self.batch.labels >= 0).nonzero()[:, 0], index)
        return TeacherOutputs(
            self.batch.rows(index),
            self.tokens[asked],
            self.logprobs[asked],
            self.rest[asked],
            self.answers[asked],
            alternative=self.alternative and self.alternative.rows(rows),
            states=None if self.states is None else self.states[index],
            injected=self.injected and self.injected.rows(index),
        )


@torch.no_grad()
def record_outputs(model: Model, batch: Batch, *, without_answer: bool = False, width: int = WIDTH) -> TeacherOutputs:
    """Run a batch once and store the model's outputs.

    With `without_answer`, each position's label is taken out and the other probabilities are renormalised.
    """
    scores = label_logits(model, batch)
    outputs = outputs_from_logits(batch, scores, width=width)
    if not without_answer:
        return outputs
    labels = batch.labels[batch.labels >= 0][:, None]
    others = outputs_from_logits(batch, scores.scatter(-1, labels, -1e4), width=width)
    return replace(others, answers=outputs.answers)


@torch.no_grad()
def outputs_from_logits(batch: Batch, scores: Tensor, *, width: int = WIDTH) -> TeacherOutputs:
    """Store logits `[n, vocabulary]` at a batch's labels, from any source, as outputs."""
    labels = batch.labels[batch.labels >= 0][:, None]
    logp = scores.float().log_softmax(-1)
    answers = logp.gather(-1, labels)[:, 0]
    tokens = logp.scatter(-1, labels, float("inf")).topk(min(width, logp.shape[-1] - 1)).indices
    logprobs = logp.gather(-1, tokens)
    return TeacherOutputs(batch, tokens, logprobs, _log_rest(logprobs), answers)


def label_logits(model: Model, batch: Batch, injected: InjectedStates | None = None) -> Tensor:
    """Logits `[n, vocabulary]` at a batch's labels, with states injected if there are any."""
    with replace_block_outputs(model.hf, injected.replace) if injected else nullcontext():
        return logits(model, batch)[batch.labels >= 0]


def divergence(model: Model, teacher: TeacherOutputs) -> Tensor:
    """Mean Kullback-Leibler divergence from the stored outputs to the model's present ones, in nats per token.

    All tokens that were not stored count as a single one, so this is a lower bound. Cost: one forward pass.
    """
    return divergence_of(label_logits(model, teacher.batch, teacher.injected), teacher)


def divergence_of(scores: Tensor, teacher: TeacherOutputs) -> Tensor:
    """`divergence` for given logits `[n, vocabulary]`."""
    logprobs = scores.float().log_softmax(-1).gather(-1, teacher.tokens)
    inside = (teacher.logprobs.exp() * (teacher.logprobs - logprobs)).sum(-1)
    return (inside + teacher.rest.exp() * (teacher.rest - _log_rest(logprobs))).mean()


def _log_rest(logprobs: Tensor) -> Tensor:
    """The log-probability of all tokens that are not among these, `[n]` from `[n, width]`."""
    return (1 - logprobs.exp().sum(-1)).clamp(min=1e-9).log()
