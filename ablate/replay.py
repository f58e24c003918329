"""The same edit again, on other sites."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import UserError
from ..knowledge import Case
from ..model import Edit, Site
from .descend import Progress
from .mass_edit import mass_edit
from .rank_one import rank_one
from .reset import reset
from .tune import tune
from .zero import zero

if TYPE_CHECKING:
    from ..model import Model

METHODS = {"zero": zero, "tune": tune, "reset": reset, "rank_one": rank_one, "mass_edit": mass_edit}


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
    extra = {} if method is zero else {"progress": progress}
    return method(model, case, sites, **edit.about["arguments"], **extra)
