"""The same edit again, on other sites."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Edit, Site
from .common import Progress
from .methods import METHODS, perform

if TYPE_CHECKING:
    from ..model import Model


@accepts_spec
def rerun_on(model: Model, case: Case, edit: Edit, sites: Iterable[Site], *, progress: Progress | None = None) -> Edit:
    """Make a control for an edit: the same method with the same arguments, on other sites.

    Cost: that of the edit.

    Raises:
        UserError: as `check_rerun`.

    Example:
        control = loka.ablate.rerun_on(model, case, edit, loka.locate.random_sites(model, sites))
    """
    check_rerun(edit)
    return perform(edit.record.method, model, case, sites, edit.record.arguments, progress=progress)


def check_rerun(edit: Edit) -> None:
    """Refuse an edit that `rerun_on` cannot run again; its record may come from a file that somebody else wrote.

    Raises:
        UserError: the edit's record does not name a method of `METHODS`, or has arguments that the method does not
            take from a file (`Method.read`).
    """
    record = edit.record
    if record.method not in METHODS:
        raise UserError(f"an edit made by {record.method!r} cannot be rerun; choose from {', '.join(METHODS)}.")
    METHODS[record.method].read(record.arguments)
