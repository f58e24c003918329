"""Make an edit, train on from it, and return both as one edit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Edit, Site
from .common import Progress, edit_record, progress_argument, target_slices
from .training.config import TrainingConfig
from .training.loop import Callbacks
from .training.train_edit import fit_objective, prepare_task, train_edit
from .zero import zero

if TYPE_CHECKING:
    from ..model import Model

FOLLOW_UP = TrainingConfig(objective="ascent", steps=20)


@accepts_spec
def follow_up(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    config: TrainingConfig = FOLLOW_UP,
    *,
    first: Edit | Callable[..., Edit] = zero,
    own_sites: bool = False,
    progress: Progress | None = None,
) -> Edit:
    """Edit the sites by one method, then train them with a forget objective: by default zero, then ascend.

    The retain terms pull the model towards the original, not towards the result of the first edit.

    Args:
        sites: the sites that both stages may change.
        config: the training, see `TrainingConfig`; by default `ascent` for 20 steps.
        first: the method to begin with, called as `first(model, case, sites)`, such as `loka.ablate.memit` or a
            `functools.partial` of it. It may also be an edit, but `rerun_on` cannot rerun the result on control sites.
        own_sites: let the first method choose its own sites, as `memit` can; `sites` then apply to the training alone.
        progress: called with the steps done and their total, including those of the first method.

    Cost: that of the first method, plus that of `tune` with as many steps.

    Raises:
        UserError: no sites, or input that the first method or `tune` rejects. The training's input is checked before
            the first edit is made.
        LokaError: training diverged.

    Example:
        first = functools.partial(loka.ablate.memit, config=loka.ablate.configure("memit", contexts=4))
        edit = loka.ablate.follow_up(model, case, found.top(200), first=first, own_sites=True)
    """
    if not (isinstance(first, Edit) or callable(first)):
        raise UserError(f"first={first!r} is not an edit or a method; give one such as `loka.ablate.memit`.")
    sites = None if sites is None else list(sites)
    where = target_slices(model, sites)
    fit_objective(model, where, config)  # checks the training's input before the first edit is made
    counter = _Counter(progress, config.steps)
    if isinstance(first, Edit):
        start, given = first, {"first": first.digest()}
    else:
        start = first(model, case, None if own_sites else sites, **progress_argument(first, counter.during_first))
        given = {"first": start.record.method, "first_arguments": start.record.arguments, "own_sites": own_sites}
    record = edit_record("follow_up", model, case, sites, {"config": config.to_json(), **given})
    record = replace(record, sites=()) if isinstance(first, Edit) else record
    task = prepare_task(model, case, where, config)
    return train_edit(model, where, task, config, record, Callbacks(counter.after_first), start=start)


class _Counter:
    """Reports the steps of the first edit and of the training as one count."""

    def __init__(self, progress: Progress | None, steps: int) -> None:
        self.progress, self.steps, self.first = progress, steps, 0

    def during_first(self, done: int, total: int) -> None:
        self.first = total
        if self.progress:
            self.progress(done, total + self.steps)

    def after_first(self, done: int, total: int) -> None:
        if self.progress:
            self.progress(self.first + done, self.first + total)
