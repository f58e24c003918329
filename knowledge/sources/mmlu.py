"""MMLU: Hendrycks et al. 2021, "Measuring Massive Multitask Language Understanding", arXiv:2009.03300."""

from __future__ import annotations

from ..kinds import Record
from .choices import choice
from .common import Table, each


def mmlu(table: Table) -> list[Record]:
    """Multiple choice: `question`, `choices`, and in `answer` the index of the right one, from 0, or its letter.

    MMLU's `subject` is a field of study, not what a question is about, so it is left out.

    Raises:
        UserError: rows with problems; the message lists them.
    """
    return each(table, lambda cells: choice(cells, ("choices", "options"), "answer"))
