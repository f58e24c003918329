"""An edit, then training on the same sites, as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..knowledge import Case
from ..model import Edit, Site, capture, merge, scratch
from .descend import Progress, Schedule, descend
from .lessons import prepare
from .objectives import objective as named
from .tune import chosen, described

if TYPE_CHECKING:
    from ..model import Model


def follow_up(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    *,
    first: str | Edit = "zero",
    arguments: Mapping[str, Any] | None = None,
    objective: str = "ascent",
    settings: Mapping[str, Any] | None = None,
    steps: int = 20,
    lr: float = 1e-3,
    alpha: float = 1.0,
    beta: float = 1.0,
    push: float = 0.0,
    retain_rows: int = 12,
    neutral_rows: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> Edit:
    """Edit the sites by one method, then train them with a forget objective: zero, then ascend.

    The retain term draws back to the original, not to what the first edit left of it.

    Args:
        sites: what both may change.
        first: the method to begin with, by its name among `METHODS`, with its own `arguments`; or an edit, of which
            nobody can make a control on other sites.
        objective, settings, steps, lr, alpha, beta, push, retain_rows, neutral_rows: of the training, see `tune`.

    Cost: the first method's, and that of `tune` with as many steps.

    Raises:
        UserError: an unknown first method, or what the first method and `tune` refuse.
        LokaError: training diverged.
    """
    from .replay import METHODS, perform

    if not isinstance(first, Edit) and first not in METHODS:
        raise UserError(f"{first!r} is no method; choose one of {', '.join(METHODS)}.")
    own = {
        "first": first.digest() if isinstance(first, Edit) else first, "arguments": dict(arguments or {}),
        "objective": objective, "steps": steps, "lr": lr, "alpha": alpha, "beta": beta, "push": push,
        "retain_rows": retain_rows, "neutral_rows": neutral_rows,
        "seed": seed, **({"settings": dict(settings)} if settings else {}),
    }  # fmt: skip
    sites = None if sites is None else list(sites)
    case, where = case.on(model), chosen(model, sites)
    goal = named(objective, settings).on(model, where)
    begun = first if isinstance(first, Edit) else perform(first, model, case, sites, arguments or {})
    lessons = prepare(
        model,
        case,
        retain_rows=retain_rows,
        neutral_rows=neutral_rows,
        seed=seed,
        instead=goal.alternatives(),
        goal=goal,
    )
    schedule = Schedule(steps, lr, alpha, beta, push)
    with begun.applied(model):
        made_for = model.digest()
        with scratch(model, where):
            descend(model, where, lessons, goal, schedule, seed=seed, progress=progress)
            then = capture(model, where, made_for, {})
    about = described("follow_up", model, case, sites, own)
    if isinstance(first, Edit):
        del about["sites"]
    return replace(merge(model, [begun, then]), about=about)
