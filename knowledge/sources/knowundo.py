"""KnowUnDo: Tian et al. 2024, "To Forget or Not? Towards Practical Knowledge Unlearning for LLMs", arXiv:2407.01920."""

from __future__ import annotations

from ..kinds import Question, Record
from .common import Table, each


def knowundo(table: Table) -> list[Record]:
    """Questions in `text`, answers in `labels`.

    Raises:
        UserError: rows with problems; the message lists them.
    """
    return each(table, lambda cells: Question(cells.text("text"), cells.text("labels")))
