"""A push added to any objective, for answers that are still far likelier than chance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...model.train.distill import TeacherOutputs


def excess(scores: Tensor, memory: TeacherOutputs) -> Tensor:
    """Half the squared log-probability of each whole answer above chance, over the log of the vocabulary size.

    `scores`: logits `[n, vocabulary]` at the batch's labels. The gradient is that of `ascent`, weighted by how far the
    answer still is from chance: it pushes stubborn facts hardest, and forgotten ones not at all.
    """
    labels = memory.batch.labels
    owner = (labels >= 0).nonzero()[:, 0]
    token = scores.log_softmax(-1).gather(-1, labels[labels >= 0][:, None])[:, 0]
    answer = torch.zeros(len(labels), dtype=token.dtype, device=token.device).index_add(0, owner, token)
    chance = math.log(scores.shape[-1])
    return ((answer + chance).clamp(min=0) ** 2).mean() / (2 * chance)
