"""MUSE: Shi et al. 2024, "MUSE: Machine Unlearning Six-Way Evaluation for Language Models", arXiv:2407.06460."""

from __future__ import annotations

from ..kinds import Passage, Question, Record
from .common import Cells, Table, each, passage


def muse(table: Table) -> list[Record]:
    """Questions (`knowmem`: `question`, `answer`) or passages (`verbmem`: `prompt`, `gt`; plain texts: `text`).

    Raises:
        UserError: rows with problems; the message lists them.
    """
    return each(table, _question if table.kind == "question" else _passage)


def _question(cells: Cells) -> Question:
    question, (answer, *aliases) = cells.text("question"), cells.answers("answer")
    return Question(question, answer, aliases=tuple(aliases))


def _passage(cells: Cells) -> Passage:
    return passage(cells, cells.text("gt", "text"), cells.optional("prompt"))
