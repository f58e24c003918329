"""The position where a prompt's subject ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import UserError
from ..batch import Batch
from ..prompt import Prompt
from ..tokens import token_ids

if TYPE_CHECKING:
    from ..load import Model


def subject_end(model: Model, prompt: Prompt) -> int:
    """The position of the last token of the subject's last mention, counted from 0.

    Raises:
        UserError: a prompt in which no subject stands.
    """
    if not getattr(prompt, "slots", ()):
        raise UserError(f"no subject stands in the prompt {str(prompt)!r}, so it has no position; name its subject.")
    return len(token_ids(model, [prompt[: prompt.slots[-1][1]]])[0]) - 1


def subject_ends(model: Model, batch: Batch, prompts: Sequence[Prompt]) -> Tensor:
    """The position of each subject's last token in a batch's left-padded rows, `[row]`.

    Raises:
        UserError: a prompt in which no subject stands.
    """
    ends = [subject_end(model, p) for p in prompts]
    return (1 - batch.mask).sum(-1) + torch.tensor(ends, device=batch.mask.device)
