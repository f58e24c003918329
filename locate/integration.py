"""Numerical integration between two runs' activations."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from .._util.errors import UserError
from ..model.run.hooks import Hook

Rule = Literal["midpoint", "left", "right", "ends"]


def integration_points(steps: int, rule: Rule = "midpoint") -> list[float]:
    """`steps` points between 0 and 1, of equal weight.

    The error of the midpoint rule falls with the square of `steps`, that of the other rules linearly. The points of
    `ends` include both 0 and 1, as in the published knowledge-neuron code.

    Raises:
        UserError: fewer than one step, or an unknown rule.
    """
    if steps < 1:
        raise UserError(f"an integral needs at least one step, not {steps}; give 1 or more.")
    match rule:
        case "midpoint":
            return [(k + 0.5) / steps for k in range(steps)]
        case "left":
            return [k / steps for k in range(steps)]
        case "right":
            return [(k + 1) / steps for k in range(steps)]
        case "ends":
            return [k / max(steps - 1, 1) for k in range(steps)]
        case _:
            raise UserError(f"{rule!r} is not a rule of integration; choose one of {', '.join(get_args(Rule))}.")


def interpolate(clean: Tensor, other: Tensor, mask: Tensor, share: float) -> Hook:
    """A hook that moves an activation to `share` of the way from the other run to the clean run.

    It acts where `mask` `[row, position]` is 1, and starts a new graph, so that gradients are taken with respect to
    the moved activation.
    """
    mask = mask.reshape(*mask.shape, *[1] * (clean.ndim - 2))
    moved = (clean - (1 - share) * mask * (clean - other)).to(clean.dtype).detach()
    return lambda _: moved.clone().requires_grad_(True)
