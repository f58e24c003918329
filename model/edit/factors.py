"""A low-rank change to one of a model's matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import UserError
from ..anatomy import feature_dim

if TYPE_CHECKING:
    from ..load import Model


@dataclass(frozen=True, eq=False)
class Factors:
    """`left @ right` is added to a matrix.

    `name`: the parameter, as in `hf.named_parameters()`; `left`: `[rows, rank]`, `right`: `[rank, columns]`,
    rows and columns as the parameter is stored.
    """

    name: str
    left: Tensor
    right: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """The matrix's rows and columns."""
        return self.left.shape[0], self.right.shape[1]

    def check(self, parameter: Tensor) -> None:
        """Raise `UserError` unless the parameter has the matrix's shape."""
        if tuple(parameter.shape) != self.shape:
            raise UserError(
                f"factors of shape {self.shape} do not fit {self.name} of shape {tuple(parameter.shape)}; "
                "make the edit on this model."
            )

    @torch.no_grad()
    def add_(self, parameter: Tensor) -> None:
        """Add the product in double precision and round once, so that the order of sums does not change the bits."""
        self.check(parameter)
        change = self.left.to(parameter.device).double() @ self.right.to(parameter.device).double()
        parameter.copy_(parameter.double() + change)


def factors(model: Model, module: str, left: Tensor, right: Tensor) -> Factors:
    """The change that moves a linear map's output by `x @ left @ right`, however its weight is stored.

    `module`: the map's name; `left`: `[d_in, rank]`, `right`: `[rank, d_out]`.
    """
    if feature_dim(model.hf.get_submodule(module), out=True) == 0:
        left, right = right.t(), left.t()
    dtype = torch.promote_types(model.dtype, torch.float32)  # the sum is rounded to the model's type, not the factors
    return Factors(f"{module}.weight", *(f.detach().to("cpu", dtype).contiguous() for f in (left, right)))
