"""The same edit again, on other sites."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import UserError
from ..knowledge import Case
from ..model import Edit, Site
from .descend import Progress
from .mass_edit import mass_edit
from .mean import mean
from .project_out import project_out
from .rank_one import rank_one
from .resample import resample
from .reset import reset
from .scale import scale
from .task_vector import task_vector
from .tune import tune
from .zero import zero

if TYPE_CHECKING:
    from ..model import Model

METHODS = {
    "zero": zero,
    "mean": mean,
    "resample": resample,
    "scale": scale,
    "project_out": project_out,
    "rank_one": rank_one,
    "mass_edit": mass_edit,
    "task_vector": task_vector,
    "tune": tune,
    "reset": reset,
}
SILENT = (zero, mean, resample, scale, project_out)  # without steps to report


def replay(model: Model, case: Case, edit: Edit, sites: Iterable[Site], *, progress: Progress | None = None) -> Edit:
    """Make an edit's control: its method with its arguments, on other sites.

    Raises:
        UserError: the edit does not say how it was made.
    """
    method = METHODS.get(str(edit.about.get("method")))
    if method is None:
        raise UserError(
            f"an edit made by {edit.about.get('method')!r} cannot be made again; known are {', '.join(METHODS)}."
        )
    extra = {} if method in SILENT else {"progress": progress}
    return method(model, case, sites, **edit.about["arguments"], **extra)
