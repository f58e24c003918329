"""The position where a prompt's subject ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..batch import Batch

if TYPE_CHECKING:
    from ..load import Model


def subject_end(model: Model, prompt: str, subject: str) -> int:
    """The position of the subject's last token in its prompt, counted from 0, at its last occurrence."""
    end = prompt.rfind(subject) + len(subject)
    return len(model.tokenizer(prompt[:end])["input_ids"]) - 1


def subject_ends(model: Model, batch: Batch, prompts: Sequence[str], subjects: Sequence[str]) -> Tensor:
    """The position of each subject's last token in a batch's left-padded rows, `[row]`."""
    ends = [subject_end(model, p, s) for p, s in zip(prompts, subjects, strict=True)]
    return (1 - batch.mask).sum(-1) + torch.tensor(ends, device=batch.mask.device)
