"""An edit, then training from there, as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING, Any

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Edit, Site
from .objectives import objective as named
from .training.loop import Progress, Schedule
from .training.mixup import check_number
from .training.preconditioner import check_damping
from .training.relearning import SimulatedRelearning
from .tune import chosen, described, tune

if TYPE_CHECKING:
    from ..model import Model

TRAINING = signature(tune).parameters.keys() - {"model", "case", "sites", "begun", "stop", "progress"}


def follow_up(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    *,
    first: str | Edit = "zero",
    arguments: Mapping[str, Any] | None = None,
    own: bool = False,
    objective: str = "ascent",
    steps: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
    **training: Any,
) -> Edit:
    """Edit the sites by one method, then train them with a forget objective: zero, then ascend.

    The retain term draws back to the original, not to what the first edit left of it.

    Args:
        sites: what both may change.
        first: the method to begin with, by its name among `METHODS`, with its own `arguments`; or an edit, of which
            nobody can make a control on other sites.
        own: the first method chooses its own sites, as `memit` can, and `sites` are the training's alone.
        objective, steps, seed, training: of the training, see `tune`.

    Cost: the first method's, and that of `tune` with as many steps.

    Raises:
        UserError: an unknown first method, no sites, or what the first method and `tune` refuse.
        LokaError: training diverged.
    """
    from .methods import METHODS, perform

    if not isinstance(first, Edit) and first not in METHODS:
        raise UserError(f"{first!r} is no method; choose one of {', '.join(METHODS)}.")
    if other := sorted(training.keys() - TRAINING):
        raise UserError(f"{other[0]!r} is no argument of the training; choose of {', '.join(sorted(TRAINING))}.")
    sites = None if sites is None else list(sites)
    # what the training refuses is refused before the first edit is made
    named(objective, training.get("settings")).on(model, chosen(model, sites))
    Schedule(steps, 0.0, relapse=SimulatedRelearning.of(training.get("relapse")), states=training.get("states", 0.0))
    check_number(training.get("between", 0))
    check_damping(training.get("whiten"))
    count = _Count(progress, steps)
    where = None if own else sites
    begun = first if isinstance(first, Edit) else perform(first, model, case, where, arguments or {}, progress=count)
    made = tune(
        model, case, sites, objective=objective, steps=steps, seed=seed, begun=begun, progress=count.on, **training
    )
    given = {
        **{name: value for name, value in made.about["arguments"].items() if name != "begun"},
        "first": begun.digest() if isinstance(first, Edit) else first, "arguments": dict(arguments or {}),
        **({"own": True} if own else {}),
    }  # fmt: skip
    about = made.about | described("follow_up", model, case, sites, given)
    if isinstance(first, Edit):
        del about["sites"]
    return replace(made, about=about)


class _Count:
    """The steps of the first edit and of the training, counted as one."""

    def __init__(self, progress: Progress | None, steps: int) -> None:
        self.progress, self.steps, self.before = progress, steps, 0

    def __call__(self, done: int, total: int) -> None:
        self.before = total
        if self.progress:
            self.progress(done, total + self.steps)

    def on(self, done: int, total: int) -> None:
        if self.progress:
            self.progress(self.before + done, self.before + total)
