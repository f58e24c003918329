"""TOFU: Maini et al. 2024, "TOFU: A Task of Fictitious Unlearning for LLMs", arXiv:2401.06121."""

from __future__ import annotations

from collections.abc import Mapping

from ..kinds import Question, Record
from ..rows import Row
from .authors import author
from .common import Cells, Table, each, stands, without

BLOCK = 20  # rows about one author
OPTION = "option"


def tofu(table: Table) -> list[Record]:
    """Any of TOFU's files: forget, retain and holdout sets, perturbed sets, real authors, world facts.

    Perturbed answers, or the options that are not right, are wrong answers. In files of whole blocks of 20 rows, a row
    is about the author whose name the block repeats, if the name stands in the row.

    Raises:
        UserError: rows with problems; the message lists them.
    """
    names = _authors(table)
    return each(table, lambda cells: _question(cells, names.get(_block(cells.number), "")))


def _question(cells: Cells, name: str) -> Question:
    question, answer = cells.text("question"), cells.text("answer")
    options = (text for column in _options(cells.row) for text in cells.texts(column))
    wrong = dict.fromkeys([*cells.texts("perturbed_answer"), *options])
    return Question(
        question,
        answer,
        paraphrases=without(cells.texts("paraphrased_question"), question),
        wrong=without(list(wrong), answer),
        subject=name if name and stands(name, f"{question}\n{answer}") else "",
        rephrased=cells.optional("paraphrased_answer"),
    )


def _options(row: Row) -> list[str]:
    return sorted(name for name in row if name.startswith(OPTION) and name[len(OPTION) :].isdecimal())


def _block(number: int) -> int:
    return (number - 1) // BLOCK


def _authors(table: Table) -> Mapping[int, str]:
    """The author of each block; none if the rows are not whole blocks, or have options."""
    blocks: dict[int, list[str]] = {}
    for number, row in table.rows:
        blocks.setdefault(_block(number), []).append(f"{row.get('question')}\n{row.get('answer')}")
    if any(len(texts) != BLOCK for texts in blocks.values()) or any(_options(row) for _, row in table.rows):
        return {}
    return {block: author(texts) for block, texts in blocks.items()}
