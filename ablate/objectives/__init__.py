"""The forget objectives: each loss as a plain function over tensors, and as an `Objective` for `tune`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..._util.errors import UserError
from .alternative import Alternative, alternative
from .answers import log_ratio
from .ascent import Ascent, ascent
from .base import ForgetBatch, Objective
from .ceu import Ceu, ceu
from .difference import Difference, difference
from .excess import excess
from .idk import Idk, dpo
from .npo import Npo, npo
from .pdu import Pdu, pdu
from .retain import likelihood, retain_divergence
from .rmu import Rmu, direction, rmu
from .satimp import SatImp, satimp
from .simnpo import SimNpo, simnpo
from .twin_distribution import TwinDistribution, twin_distribution
from .twin_states import TwinStates, twin_states
from .undial import Undial, undial
from .unseen_loss import UnseenLoss, unseen_loss
from .wga import Wga, wga

__all__ = [
    "OBJECTIVES",
    "ForgetBatch",
    "Objective",
    "alternative",
    "ascent",
    "ceu",
    "difference",
    "direction",
    "dpo",
    "excess",
    "likelihood",
    "log_ratio",
    "npo",
    "objective",
    "pdu",
    "retain_divergence",
    "rmu",
    "satimp",
    "simnpo",
    "twin_distribution",
    "twin_states",
    "undial",
    "unseen_loss",
    "wga",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "undial": Undial,
    "ascent": Ascent,
    "difference": Difference,
    "npo": Npo,
    "simnpo": SimNpo,
    "idk": Idk,
    "wga": Wga,
    "satimp": SatImp,
    "ceu": Ceu,
    "pdu": Pdu,
    "rmu": Rmu,
    "twin_states": TwinStates,
    "twin_distribution": TwinDistribution,
    "alternative": Alternative,
    "unseen_loss": UnseenLoss,
}


def objective(name: str, settings: Mapping[str, Any] | None = None) -> Objective:
    """The objective of that name, with its paper's hyper-parameters.

    Raises:
        UserError: an unknown name, a setting that the objective does not have, or a value that it does not allow.
    """
    if name not in OBJECTIVES:
        raise UserError(f"{name!r} is not an objective; choose from {', '.join(OBJECTIVES)}.")
    try:
        return OBJECTIVES[name](**settings or {})
    except ValidationError as error:
        raise UserError(_refused(name, error)) from None


def _refused(name: str, error: ValidationError) -> str:
    """What is wrong with the settings, what is allowed, and what to do."""
    fields = OBJECTIVES[name].model_fields
    wrong = []
    for e in error.errors():
        key = ".".join(map(str, e["loc"]))
        unknown = e["type"] == "extra_forbidden"
        wrong.append(f"there is no setting {key!r}" if unknown else f"{key} = {e['input']!r}: {e['msg'].lower()}")
    takes = ", ".join(f"{key} (default {field.default!r})" for key, field in fields.items())
    return (
        f"settings of the objective {name!r}: {'; '.join(wrong)}. "
        + (f"It takes {takes}; correct the value or leave it out." if takes else "It takes none; leave them out.")
    )  # fmt: skip
