"""Where on the path from one state to another an integral is evaluated."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from .._util.errors import UserError
from ..model.run.hooks import Hook

Rule = Literal["midpoint", "left", "right", "ends"]


def grid(steps: int, rule: Rule = "midpoint") -> list[float]:
    """`steps` points between 0 and 1, to be weighed alike.

    The midpoint rule's error falls with the square of the steps, that of the others with the steps.
    `ends` has both ends among its points, as published knowledge-neuron code has.

    Raises:
        UserError: fewer than one step, or a rule that is none of the four.
    """
    if steps < 1:
        raise UserError(f"an integral needs at least one step, not {steps}.")
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
            raise UserError(f"{rule!r} is no rule of integration; choose one of {', '.join(get_args(Rule))}.")


def between(clean: Tensor, other: Tensor, seen: Tensor, share: float) -> Hook:
    """Puts an activation `share` of the way from the other run to the clean one, where `seen` `[row, position]`.

    It starts a graph of its own, so that gradients are those by what is put there.
    """
    seen = seen.reshape(*seen.shape, *[1] * (clean.ndim - 2))
    moved = (clean - (1 - share) * seen * (clean - other)).detach()
    return lambda _: moved.clone().requires_grad_(True)
