"""Answers as surprising as those of items that the model never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..._util.errors import UserError
from ...knowledge import Case, Item
from ...model import chunks, logits, token_logprobs
from ...model.train.distill import TeacherOutputs
from ..training.whole import encode_whole
from .base import ForgetBatch, Objective

if TYPE_CHECKING:
    from ...model import Model

ROWS = 32


def unseen_loss(scores: Tensor, labels: Tensor, level: Tensor) -> Tensor:
    """Half the squared distance of each row's mean log-probability from a level, in nats squared.

    The level is where SCRUB rewinds to (Kurmanji et al. 2023, arXiv:2302.09880): the error on data that were never
    seen. Ascent goes past it, so that what was erased stands out as too surprising; this loss holds it there.

    Args:
        scores: logits `[row, keep, vocabulary]`.
        labels: `[row, keep]`, -100 where no token is scored.
        level: `[row]`, in nats per token.
    """
    return ((row_means(token_logprobs(scores, labels), labels) - level) ** 2).mean() / 2


def row_means(logprobs: Tensor, labels: Tensor) -> Tensor:
    """The mean over each row's labels, `[row]` from `[row, keep]`."""
    asked = labels >= 0
    return (logprobs * asked).sum(-1) / asked.sum(-1).clamp(min=1)


class UnseenLoss(Objective):
    """`unseen_loss` on answers as a whole, and on passages with their beginning.

    The level is the original's mean over twins, or its own where that is lower.
    """

    whole: ClassVar[bool] = True

    @torch.no_grad()
    def prepare_targets(
        self, model: Model, case: Case, turns: Sequence[Sequence[Item]], memories: Sequence[TeacherOutputs]
    ) -> list[TeacherOutputs]:
        """The batches with the levels added. Raises `UserError` if the case has no twins of a kind that it forgets."""
        levels = {kind: _level(model, case, kind) for kind in dict.fromkeys(i.kind for turn in turns for i in turn)}
        return [_at_level(memory, [levels[i.kind] for i in turn]) for turn, memory in zip(turns, memories, strict=True)]

    def __call__(self, asked: ForgetBatch) -> Tensor:
        target = asked.memory.alternative
        assert target is not None, "`prepare_targets` adds it"
        return unseen_loss(asked.logits, asked.labels, row_means(target.reference, asked.labels))


def _level(model: Model, case: Case, kind: str) -> float:
    """The original's mean log-probability of a token of twins' answers, each twin counting alike."""
    twins = [i for i in case.twins.working if i.kind == kind]
    if not twins:
        raise UserError(
            f"the objective 'unseen_loss' needs twins of every kind that {case.name!r} forgets, and there are none of "
            f"kind {kind}; add them under `twins` in the case file, or use another objective."
        )
    found = []
    for part in chunks(len(twins), ROWS):
        batch = encode_whole(model, twins[part])
        found.append(row_means(token_logprobs(logits(model, batch), batch.labels), batch.labels))
    return float(torch.cat(found).mean())


def _at_level(memory: TeacherOutputs, levels: Sequence[float]) -> TeacherOutputs:
    """The batch with each answer's level as the log-probability of each of its tokens."""
    labels = memory.batch.labels
    own = row_means(memory.reference, labels)
    target = torch.minimum(own, torch.tensor(levels, dtype=own.dtype, device=own.device))
    return replace(memory, alternative=replace(memory, answers=target[:, None].expand(labels.shape)[labels >= 0]))
