"""Destroy, then repair: what a nudge hides, a reset takes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Edit, Site, Slice, capture, scratch
from .objectives import objective as named
from .training.batches import prepare
from .training.early_stopping import warn, watching
from .training.loop import Progress, Schedule, descend
from .training.relearning import SimulatedRelearning
from .tune import chosen, described

if TYPE_CHECKING:
    from ..model import Model


def reset(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    *,
    objective: str | None = "undial",
    settings: Mapping[str, Any] | None = None,
    steps: int = 60,
    lr: float = 2e-3,
    alpha: float = 1.0,
    beta: float = 1.0,
    push: float = 0.0,
    retain_rows: int = 12,
    neutral_rows: int = 4,
    relapse: Mapping[str, float] | None = None,
    every: int = 0,
    bounds: Mapping[str, float] | None = None,
    checkpointing: bool = False,
    bfloat16: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    stop: Callable[[int], bool] | None = None,
) -> Edit:
    """Re-initialise the sites' slices, then train them back to the original on what is to be kept.

    Rows that read the residual stream are drawn anew with the spread of their matrix, columns that write
    to it become zero; then the slices learn the retain term (and the forget objective beside it, unless
    `objective` is `None`). What the slices held of the forgotten facts is not merely covered: it is no
    longer there to be uncovered.

    Arguments, cost and errors are those of `tune`.
    """
    arguments = {
        "objective": objective, "steps": steps, "lr": lr, "alpha": alpha, "beta": beta,
        "push": push, "retain_rows": retain_rows,
        "neutral_rows": neutral_rows, "seed": seed,
        "relapse": None if relapse is None else dict(relapse),
        **({"settings": dict(settings)} if settings else {}),
        **({"every": every, "bounds": dict(bounds or {})} if every else {}),
        **({"checkpointing": True} if checkpointing else {}),
        **({"bfloat16": True} if bfloat16 else {}),
    }  # fmt: skip
    if objective is None and settings:
        raise UserError(
            f"without an objective settings {dict(settings)} set nothing; name an objective, or leave them out."
        )
    where = chosen(model, sites)
    case, watch = watching(model, case.on(model), every=every, bounds=bounds)
    goal = None if objective is None else named(objective, settings).on(model, where)
    about = described("reset", model, case, sites, arguments)
    schedule = Schedule(
        steps, lr, alpha, beta, push, SimulatedRelearning.of(relapse), checkpointing=checkpointing, bfloat16=bfloat16
    )
    digest = model.digest()
    instead = goal.alternatives() if goal else ()
    lessons = prepare(
        model, case, retain_rows=retain_rows, neutral_rows=neutral_rows, seed=seed, instead=instead, goal=goal
    )
    with scratch(model, where):
        destroy_(model, where, seed=seed)
        course = descend(model, where, lessons, goal, schedule, seed=seed, progress=progress, watch=watch, stop=stop)
        if watch:
            warn(course)
            about["training"] = watch.told(course)
        return capture(model, where, digest, about)


def destroy_(model: Model, where: Sequence[Slice], *, seed: int) -> None:
    """Random rows, zero columns, in place. Call it inside `scratch`."""
    generator = torch.Generator().manual_seed(seed)
    for part in where:
        weight = model.parameters[part.name]
        values = part.read(weight).cpu()
        if _writes(model, part):
            part.write_(weight, torch.zeros_like(values))
        else:
            spread = float(weight.float().std()) if weight.ndim > 1 else 0.0
            part.write_(weight, spread * torch.randn(values.shape, generator=generator))


def _writes(model: Model, part: Slice) -> bool:
    """Whether a slice runs along a map's input features, which makes it what a site writes with."""
    from ..model.layout import feature_dim

    if part.name.endswith(".bias"):
        return False
    return part.dim == feature_dim(model.hf.get_submodule(part.name.rsplit(".", 1)[0]), out=False)
