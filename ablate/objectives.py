"""What training asks for on the forget facts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import UserError
from ..model.distill import Memory, divergence_of

Name = Literal["undial", "ascent"]
Objective = Callable[[Tensor, Memory], Tensor]


def undial(scores: Tensor, memory: Memory) -> Tensor:
    """Distil from the model's own distribution with the answer taken out.

    UNDIAL, Dong et al. 2024, arXiv:2402.10052. `scores`: logits `[n, vocabulary]` at the answer tokens;
    `memory`: what the original said there, without the answer.
    """
    return divergence_of(scores, memory)


def ascent(scores: Tensor, memory: Memory) -> Tensor:
    """Gradient ascent on the answer's loss, until a token is no likelier than by chance.

    Without that floor ascent is unbounded and wrecks a model; at it, a token's gradient is zero.
    """
    labels = memory.batch.labels[memory.batch.labels >= 0]
    logp = scores.log_softmax(-1).gather(-1, labels[:, None])
    return logp.clamp(min=-math.log(scores.shape[-1])).mean()


def excess(scores: Tensor, memory: Memory) -> Tensor:
    """Half the squared log-probability of each whole answer above chance, over the log of the vocabulary.

    Its gradient is that of `ascent`, weighed by how far the answer still is from chance, so that stubborn
    facts are pushed hardest and forgotten ones left alone.
    """
    labels = memory.batch.labels
    owner = (labels >= 0).nonzero()[:, 0]
    token = scores.log_softmax(-1).gather(-1, labels[labels >= 0][:, None])[:, 0]
    answer = torch.zeros(len(labels), dtype=token.dtype, device=token.device).index_add(0, owner, token)
    chance = math.log(scores.shape[-1])
    return ((answer + chance).clamp(min=0) ** 2).mean() / (2 * chance)


OBJECTIVES: dict[str, Objective] = {"undial": undial, "ascent": ascent}


def objective(name: str) -> Objective:
    """The objective of that name; raises `UserError` for any other."""
    if name not in get_args(Name):
        raise UserError(f"{name!r} is no objective; choose one of {', '.join(get_args(Name))}.")
    return OBJECTIVES[name]
