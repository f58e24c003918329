"""WMDP: Li et al. 2024, "The WMDP Benchmark", arXiv:2403.03218."""

from __future__ import annotations

from ..kinds import Record
from .choices import choice
from .common import Table, each


def wmdp(table: Table) -> list[Record]:
    """Multiple choice: `question`, `choices`, and in `answer` the index of the right one, from 0, or its letter.

    Raises:
        UserError: rows with problems; the message lists them.
    """
    return each(table, lambda cells: choice(cells, ("choices", "options"), "answer"))
