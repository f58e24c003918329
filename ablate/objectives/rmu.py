"""Representation misdirection (RMU): Li et al. 2024, arXiv:2403.03218."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor

from ...errors import UserError
from ...model import Slice
from ...model.states import stream
from .asked import Asked, Objective
from .conventions import STATED, peers

if TYPE_CHECKING:
    from ...model import Model


def rmu(states: Tensor, asked: Tensor, target: Tensor, *, convention: str = STATED) -> Tensor:
    """Mean squared distance of hidden states from a target, averaged over each row's positions, then over rows.

    RMU, Li et al. 2024, arXiv:2403.03218. `states`: `[row, position, width]`; `asked`: bool `[row, position]`,
    at least one in each row; `target`: `[width]`, the `direction` to steer to, or `[row, position, width]`, the
    original's states, for a retain term. `convention="open-unlearning"` divides every row's sum by every
    row's count, which is the same only where all rows are equally long. As in the published code the mean goes over
    the width too, where the paper has a squared norm.

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


class Rmu(Objective):
    """Steer the residual stream behind a layer to one random direction where the answers are asked for.

    `layer`: behind which block; `None` is the last that has a site, and sites above it learn from the retain term
    alone. `coefficient`: how long the direction is, in the stream's units; `seed` draws it. The loss is not
    in nats, so that `alpha` may have to differ. The retain term is `tune`'s, on what the model says. Steered are the
    positions from which the answers' decisive tokens are predicted; the paper steers every token of a text.
    """

    layer: NonNegativeInt | None = None
    coefficient: PositiveFloat = 6.5
    seed: NonNegativeInt = 0

    def on(self, model: Model, where: Sequence[Slice]) -> Rmu:
        """With the layer filled in.

        Raises:
            UserError: a layer that the model does not have, or one below every site.
        """
        sites = [i for i in range(model.n_layers) if any(s.name.startswith(f"{model.block(i)}.") for s in where)]
        layer = max(sites) if self.layer is None else self.layer
        if not min(sites) <= layer < model.n_layers:
            raise UserError(
                f"rmu cannot steer behind layer {layer} with sites from layer {min(sites)} on; "
                f"give a layer from {min(sites)} to {model.n_layers - 1}, or leave it out."
            )
        return self.model_copy(update={"layer": layer})

    def __call__(self, asked: Asked) -> Tensor:
        assert self.layer is not None, "`on` fills the layer in"
        states = stream(asked.model, asked.memory.batch, self.layer)
        target = direction(states.shape[-1], coefficient=self.coefficient, seed=self.seed)
        return rmu(states, asked.labels >= 0, target.to(states))
