"""The same edit again, on other sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

from .._util.errors import UserError
from ..knowledge import Case
from ..model import Edit, Site
from .follow_up import follow_up
from .leace import leace
from .lora import lora
from .mean import mean
from .memit import memit
from .resample import resample
from .reset import reset
from .rome import rome
from .rounds import rounds
from .selective_dampening import selective_dampening
from .task_vector import task_vector
from .training.loop import Progress
from .tune import tune
from .zero import zero

if TYPE_CHECKING:
    from ..model import Model

METHODS: dict[str, Callable[..., Edit]] = {
    "zero": zero,
    "mean": mean,
    "resample": resample,
    "selective_dampening": selective_dampening,
    "leace": leace,
    "rome": rome,
    "memit": memit,
    "task_vector": task_vector,
    "tune": tune,
    "reset": reset,
    "lora": lora,
    "rounds": rounds,
    "follow_up": follow_up,
}


def perform(
    name: str,
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    arguments: Mapping[str, Any],
    *,
    progress: Progress | None = None,
) -> Edit:
    """An edit by the method of that name; those with steps report their progress."""
    method = METHODS[name]
    extra = {"progress": progress} if "progress" in signature(method).parameters else {}
    return method(model, case, sites, **arguments, **extra)


def rerun_on(model: Model, case: Case, edit: Edit, sites: Iterable[Site], *, progress: Progress | None = None) -> Edit:
    """Make an edit's control: its method with its arguments, on other sites.

    Raises:
        UserError: the edit does not say how it was made.
    """
    name = str(edit.about.get("method"))
    if name not in METHODS:
        raise UserError(
            f"an edit made by {edit.about.get('method')!r} cannot be made again; known are {', '.join(METHODS)}."
        )
    return perform(name, model, case, sites, edit.about["arguments"], progress=progress)
