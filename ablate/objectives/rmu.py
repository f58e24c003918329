"""Representation misdirection (RMU): Li et al. 2024, arXiv:2403.03218."""

from __future__ import annotations

import torch
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor

from .at_block import AtBlock
from .base import ForgetBatch
from .conventions import STATED, peers


def rmu(states: Tensor, asked: Tensor, target: Tensor, *, convention: str = STATED) -> Tensor:
    """Mean squared distance of hidden states from a target, averaged over each row's positions, then over rows.

    RMU, Li et al. 2024, arXiv:2403.03218. `states`: `[row, position, width]`; `asked`: bool `[row, position]`,
    at least one in each row; `target`: `[width]`, the `direction` to steer to, or `[row, position, width]`, the
    original's states, for a retain term. `convention="open-unlearning"` divides every row's sum by every row's count,
    which is the same only if all rows are equally long. As in the published code, the mean goes over the width too;
    the paper has a squared norm.

    Raises:
        UserError: an unknown convention.
    """
    sums = (((states - target) ** 2).mean(-1) * asked).sum(-1)
    counts = asked.sum(-1)
    return (sums / counts[:, None] if peers(convention) else sums / counts).mean()


def direction(width: int, *, coefficient: float = 6.5, seed: int = 0) -> Tensor:
    """A random direction of length `coefficient`, `[width]`, drawn from the positive orthant as in the paper."""
    drawn = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    return coefficient * drawn / drawn.norm()


class Rmu(AtBlock):
    """Steer the residual stream after a block to one random direction, where the answers are predicted.

    `layer`: see `AtBlock`. `coefficient`: the direction's length, in the stream's units; `seed` draws it. The loss is
    not in nats, so `retain_weight` may have to differ. The retain term is `tune`'s, on the model's outputs. This steers
    the positions that predict the answers' decisive tokens; the paper steers every token of a text.
    """

    coefficient: PositiveFloat = 6.5
    seed: NonNegativeInt = 0

    def __call__(self, asked: ForgetBatch) -> Tensor:
        states = self.states(asked)
        target = direction(states.shape[-1], coefficient=self.coefficient, seed=self.seed)
        return rmu(states, asked.labels >= 0, target.to(states))
