"""LoRA: train low-rank changes, the baseline that most tools offer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Edit, Site, low_rank
from .common import Progress, Stop, edit_record, target_slices
from .training.config import TrainingConfig
from .training.loop import Callbacks, train
from .training.train_edit import prepare_task

if TYPE_CHECKING:
    from ..model import Model

LORA = TrainingConfig()
TAKEN = (
    "objective", "settings", "steps", "lr", "retain_weight", "neutral_weight", "push_weight", "retain_rows",
    "neutral_rows", "mixup_rows", "warm_up", "seed",
)  # fmt: skip


@accepts_spec
def lora(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    config: TrainingConfig = LORA,
    *,
    rank: int = 8,
    scale: float = 2.0,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Edit:
    """Train a low-rank change to every linear map that holds a site, the way `tune` trains slices.

    LoRA, Hu et al. 2021, arXiv:2106.09685: `scale * left @ right` is added to each map, and `right` starts at zero. The
    edit holds these factors and no slices, so `export_adapter` writes it without loss.

    Args:
        sites: the sites whose maps may change, each as a whole: `attn` and `mlp` of some layers. `None` means every map
            of every block.
        config: see `TrainingConfig`; adapters support neither early stopping nor preconditioning nor simulated
            relearning.
        rank: the rank of each change.
        scale: the paper's alpha divided by the rank.
        progress, stop: see `tune`.

    Cost: that of `tune` with as many steps; gradients flow down to the lowest map.

    Raises:
        UserError: no sites, a rank under 1, or a configuration field that adapters do not support.
        LokaError: training diverged.
    """
    if rank < 1:
        raise UserError(f"rank {rank} must be 1 or more; 8 is usual.")
    config = config.restrict("lora", TAKEN, LORA)
    sites = None if sites is None else list(sites)
    where = target_slices(model, sites)
    modules = list(dict.fromkeys(w.name.removesuffix(".weight") for w in where if w.name.endswith(".weight")))
    arguments = {"rank": rank, "scale": scale, "config": config.to_json()}
    record, task = edit_record("lora", model, case, sites, arguments), prepare_task(model, case, where, config)
    adapting = low_rank(model, modules, rank=rank, scale=scale, seed=config.seed, start="uniform", torch_products=True)
    with adapting as adapters, torch.enable_grad():
        train(model, adapters, task, config, Callbacks(progress, stop))
        return Edit((), (), model.digest(), record, adapters.factors())
