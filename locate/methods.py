"""Every locator by its name."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Model, Part
from .atp_star import atp_star
from .attribution import attribution
from .direct_logit import direct_logit
from .exact import sweep
from .integrated_gradients import integrated_gradients
from .knowledge_neurons import knowledge_neurons
from .localization import Localization
from .taylor import taylor

METHODS: dict[str, Callable[..., Localization]] = {
    "attribution": attribution,
    "integrated_gradients": integrated_gradients,
    "atp_star": atp_star,
    "direct_logit": direct_logit,
    "knowledge_neurons": knowledge_neurons,
    "taylor": taylor,
    "sweep": sweep,
}


def perform(
    name: str,
    model: Model,
    case: Case,
    *,
    part: Part | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Localization:
    """A localization by the locator of that name, of one part or of those it scores by itself.

    Raises:
        UserError: no such locator, or a part that it does not score.
    """
    if name not in METHODS:
        raise UserError(f"{name!r} is no locator; choose one of {', '.join(METHODS)}.")
    takes = signature(METHODS[name]).parameters
    extra: dict[str, Any] = {}
    if part is not None and "part" in takes:
        extra = {"part": part}
    elif part is not None and "parts" in takes:
        extra = {"parts": (part,)}
    elif part not in (None, "neuron"):
        raise UserError(f"{name} scores neurons alone, not {part!r}; leave the part out, or choose another locator.")
    return METHODS[name](model, case, progress=progress, **extra)
