"""LoRA: train changes of low rank, the baseline that most tools offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Edit, Site, low_rank
from .objectives import objective as named
from .training.batches import prepare
from .training.loop import Progress, Schedule, train_
from .tune import chosen, described

if TYPE_CHECKING:
    from ..model import Model


def lora(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    *,
    rank: int = 8,
    scale: float = 2.0,
    objective: str = "undial",
    settings: Mapping[str, Any] | None = None,
    steps: int = 40,
    lr: float = 1e-3,
    alpha: float = 1.0,
    beta: float = 1.0,
    push: float = 0.0,
    retain_rows: int = 12,
    neutral_rows: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
    stop: Callable[[int], bool] | None = None,
) -> Edit:
    """Train a change of low rank to every linear map that holds a site, as `tune` trains slices.

    LoRA, Hu et al. 2021, arXiv:2106.09685: `scale * left @ right` is added, `right` zero at first. The edit holds these
    factors and no slices, so that `export_adapter` writes it as it is.

    Args:
        sites: whose maps may change, whole: `attn` and `mlp` of some layers; `None` is every map of every block.
        rank: of each change.
        scale: the paper's alpha over its rank.
        objective, settings, steps, lr, alpha, beta, push, retain_rows, neutral_rows, stop: see `tune`.

    Cost: that of `tune` with as many steps, and gradients down to the lowest map.

    Raises:
        UserError: no sites, a rank under 1, an unknown objective, or settings that it does not take.
        LokaError: training diverged.
    """
    if rank < 1:
        raise UserError(f"rank {rank} must be 1 or more; 8 is usual.")
    arguments = {
        "rank": rank, "scale": scale, "objective": objective, "steps": steps, "lr": lr, "alpha": alpha, "beta": beta,
        "push": push, "retain_rows": retain_rows, "neutral_rows": neutral_rows, "seed": seed,
        **({"settings": dict(settings)} if settings else {}),
    }  # fmt: skip
    sites = None if sites is None else list(sites)
    case, where = case.on(model), chosen(model, sites)
    modules = list(dict.fromkeys(w.name.removesuffix(".weight") for w in where if w.name.endswith(".weight")))
    goal = named(objective, settings).on(model, where)
    about, schedule = described("lora", model, case, sites, arguments), Schedule(steps, lr, alpha, beta, push)
    lessons = prepare(
        model,
        case,
        retain_rows=retain_rows,
        neutral_rows=neutral_rows,
        seed=seed,
        instead=goal.alternatives(),
        goal=goal,
    )
    adapting = low_rank(model, modules, rank=rank, scale=scale, seed=seed, start="uniform", torch_products=True)
    with adapting as adapters, torch.enable_grad():
        train_(model, adapters, lessons, goal, schedule, seed=seed, progress=progress, stop=stop)
        return Edit((), (), model.digest(), about, adapters.factors())
