"""The safeguards of an erasure: what the rest of the model may lose, and that no earlier erasure comes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..knowledge import Case
from ..model import Model
from ..verify import collateral
from .earlier import Recheck, undone

RETAIN_DROP = 0.03  # the most that the accuracy on records to keep may fall
PERPLEXITY_RISE = 0.01  # the most that the perplexity of neutral text may rise, as a share
ROUNDING = 1e-9  # so that exactly 3 points are 3 points


@dataclass(frozen=True)
class Utility:
    """What the model still does: accuracy on records to keep, 0 to 1, and the perplexity of neutral text."""

    retain: float
    perplexity: float


def utility(model: Model, case: Case) -> Utility:
    """What a model does with the sealed records to keep, and with neutral text."""
    found = collateral(model, case)
    return Utility(float(found.value or 0.0), float(found.details["perplexity"] or "nan"))  # type: ignore[arg-type]


def broken_safeguards(before: Utility, after: Utility, earlier: Iterable[Recheck] = ()) -> Sequence[str]:
    """The safeguards that do not hold, in words. What is not a number does not hold."""
    found = []
    if not before.retain - after.retain <= RETAIN_DROP + ROUNDING:
        found.append(
            f"the accuracy on records to keep fell from {before.retain:.1%} to {after.retain:.1%}, by more than "
            f"{100 * RETAIN_DROP:.0f} points"
        )
    if not after.perplexity <= (1 + PERPLEXITY_RISE + ROUNDING) * before.perplexity:
        found.append(
            f"the perplexity of neutral text rose from {before.perplexity:.2f} to {after.perplexity:.2f}, by more than "
            f"{PERPLEXITY_RISE:.0%}"
        )
    return found + [each.words.rstrip(".") for each in undone(earlier)]
