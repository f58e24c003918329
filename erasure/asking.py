"""The model half of an assessment: what the model shows of a request's records, kept with the impact and sealed."""

from __future__ import annotations

from dataclasses import replace

from .._util.errors import UserError
from ..model import Model
from .assessment import assessable, impact_of, keep
from .impact import Impact
from .material import Material
from .model_impact import SAMPLE
from .register import Register
from .reproduction import Progress, ask_model


def ask(
    register: Register,
    id: str,
    model: Model | str,
    material: Material,
    *,
    sample: int = SAMPLE,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Impact:
    """Ask a model what it shows of a request's records, add that to the impact, and log it; see `ask_model`.

    Raises:
        UserError: not assessed, executed or ended, assessed or confirmed anew meanwhile; and as `ask_model`.
    """
    assessable(register, id)
    before = impact_of(register, id)
    found = ask_model(
        model, id, register.person(id), before, material, sample=sample, device=device, progress=progress
    )  # fmt: skip
    if impact_of(register, id) != before:
        raise UserError(f"{id} was assessed or confirmed anew while the model was asked; ask again.")
    said = {"shows": found.shows, "asked": found.asked, "model": found.model, "passes": found.passes}
    return keep(register, id, replace(before, model=found), "asked", said=dict(said))
