"""What the objectives on hidden states share: the block after which they read the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from pydantic import NonNegativeInt
from torch import Tensor

from ..._util.errors import UserError
from ...model import Slice
from ...model.run.states import label_states
from .base import ForgetBatch, Objective

if TYPE_CHECKING:
    from ...model import Model


class AtBlock(Objective):
    """`layer`: the block after which the stream is read; `None` is the last with a site.

    Sites above that block learn from the retain term alone.
    """

    layer: NonNegativeInt | None = None

    def on(self, model: Model, where: Sequence[Slice]) -> Self:
        """A copy with the layer filled in.

        Raises:
            UserError: a layer that the model does not have, or one below every site.
        """
        sites = [i for i in range(model.n_layers) if any(s.name.startswith(f"{model.block(i)}.") for s in where)]
        layer = max(sites) if self.layer is None else self.layer
        if not min(sites) <= layer < model.n_layers:
            name = type(self).__name__.lower()
            raise UserError(
                f"{name} cannot read the stream after layer {layer} with sites from layer {min(sites)} on; "
                f"give a layer from {min(sites)} to {model.n_layers - 1}, or leave it out."
            )
        return self.model_copy(update={"layer": layer})

    @property
    def block(self) -> int:
        """The layer, after `on` has filled it in."""
        assert self.layer is not None, "`on` fills the layer in"
        return self.layer

    def states(self, asked: ForgetBatch) -> Tensor:
        """The residual stream after that block, `[row, keep, width]`."""
        return label_states(asked.model, asked.memory.batch, self.block)
