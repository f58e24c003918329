"""Train slices under a configuration and capture them as an edit; `tune`, `reset` and `follow_up` share this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from ...knowledge import Case
from ...model import Edit, EditRecord, Slice, capture, merge, scratch
from ..objectives import Objective
from ..objectives import objective as build_objective
from .batches import prepare
from .config import TrainingConfig
from .early_stopping import early_stopping, warn_if_cut_short
from .loop import Callbacks, Task, train_slices
from .preconditioner import roots

if TYPE_CHECKING:
    from ...model import Model


def fit_objective(model: Model, where: Sequence[Slice], config: TrainingConfig) -> Objective | None:
    """The configuration's objective, fitted to the slices that are trained.

    Raises:
        UserError: an objective that these slices cannot have.
    """
    return None if config.objective is None else build_objective(config.objective, config.settings).on(model, where)


def prepare_task(model: Model, case: Case, where: Sequence[Slice], config: TrainingConfig) -> Task:
    """Everything that a training takes from the original. The model must still be the original here."""
    stopping = early_stopping(model, case, config)
    case = stopping.held_out.case if stopping else case
    objective = fit_objective(model, where, config)
    white = () if config.precondition is None else roots(model, case, where, config.precondition)
    return Task(prepare(model, case, config, objective), objective, stopping, white)


def train_edit(
    model: Model,
    where: Sequence[Slice],
    task: Task,
    config: TrainingConfig,
    record: EditRecord,
    callbacks: Callbacks,
    *,
    start: Edit | None = None,
    initialize_: Callable[[], None] | None = None,
) -> Edit:
    """Train slices and capture the result as an edit; the model is restored afterwards.

    Args:
        start: an edit to train from. The retain terms still pull towards the original, and the result combines both
            edits.
        initialize_: called before the first step, inside `scratch`, to set the slices' first values.

    Raises:
        LokaError: training diverged before a good state was measured.
    """
    slices = list(where)
    with start.applied(model) if start else nullcontext():
        digest = model.digest()
        if start and task.objective:
            task = replace(
                task, batches=replace(task.batches, forget=task.objective.retarget(model, task.batches.forget))
            )
        with scratch(model, slices):
            if initialize_:
                initialize_()
            result = train_slices(model, slices, task, config, callbacks)
            edit = capture(model, slices, digest, record)
    if task.stopping:
        warn_if_cut_short(result)
        record = replace(record, training=task.stopping.record(result))
    return replace(merge(model, [start, edit]) if start else edit, record=record)
