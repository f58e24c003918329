"""Train the sites' slices, and nothing else, until the model no longer gives the facts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..knowledge import Case, accepts_spec
from ..model import Edit, Site
from .common import Progress, Stop, edit_record, target_slices
from .training.config import TrainingConfig
from .training.loop import Callbacks
from .training.train_edit import prepare_task, train_edit

if TYPE_CHECKING:
    from ..model import Model

TUNE = TrainingConfig()


@accepts_spec
def tune(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    config: TrainingConfig = TUNE,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Edit:
    """Train the sites' slices on the working facts with a forget objective and a retain term.

    Args:
        sites: the sites that may change; `None` means every weight of every block, the baseline to compare with.
        config: the objective and the training, see `TrainingConfig`.
        progress: called after each step with the steps done and their total.
        stop: called after each step with the number of steps done; if it returns true, the training ends. `rerun_on`
            ignores it and takes all steps.

    Cost: `config.steps` forward and backward passes over one row per forget fact, `retain_rows` retain facts and
    `neutral_rows` passages; optimizer state for the slices alone. `precondition` adds a forward pass over the neutral
    text and the retain facts' prompts and, for each map, a matrix `[d_in, d_in]` and its eigendecomposition.

    Raises:
        UserError: no sites, or an objective that does not fit them.
        LokaError: training diverged before a good state was measured.

    Example:
        edit = loka.ablate.tune(model, case, found.top(200, part="neuron"))
    """
    sites = None if sites is None else list(sites)
    where = target_slices(model, sites)
    record = edit_record("tune", model, case, sites, {"config": config.to_json()})
    task = prepare_task(model, case, where, config)
    return train_edit(model, where, task, config, record, Callbacks(progress, stop))
