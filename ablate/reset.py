"""Re-initialise sites, then repair the model: a reset removes what a small change only hides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from ..knowledge import Case, accepts_spec
from ..model import Edit, Site, Slice
from ..model.anatomy import feature_dim
from .common import Progress, Stop, edit_record, target_slices
from .training.config import TrainingConfig
from .training.loop import Callbacks
from .training.train_edit import prepare_task, train_edit

if TYPE_CHECKING:
    from ..model import Model

RESET = TrainingConfig(steps=60, lr=2e-3)


@accepts_spec
def reset(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    config: TrainingConfig = RESET,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Edit:
    """Re-initialise the sites' slices, then train them to match the original on what is to be kept.

    Rows that read the residual stream are redrawn with the spread of their matrix; columns that write to it become
    zero. The slices are then trained on the retain term, and on the forget objective if the configuration names one.
    They no longer hold what they held about the forgotten facts, so nothing can uncover it.

    The arguments, cost and errors are those of `tune`. The default is 60 steps at a learning rate of 2e-3.
    """
    sites = None if sites is None else list(sites)
    where = target_slices(model, sites)
    record = edit_record("reset", model, case, sites, {"config": config.to_json()})
    task = prepare_task(model, case, where, config)
    initialize_ = partial(reinitialize_, model, where, seed=config.seed)
    return train_edit(model, where, task, config, record, Callbacks(progress, stop), initialize_=initialize_)


def reinitialize_(model: Model, where: Sequence[Slice], *, seed: int) -> None:
    """Random rows and zero columns, in place. Call it inside `scratch`."""
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
    """Whether a slice runs along a map's input features, which means that the site writes with it."""
    if part.name.endswith(".bias"):
        return False
    return part.dim == feature_dim(model.hf.get_submodule(part.name.rsplit(".", 1)[0]), out=False)
