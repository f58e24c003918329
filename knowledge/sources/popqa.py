"""PopQA: Mallen et al. 2023, "When Not to Trust Language Models", arXiv:2212.10511."""

from __future__ import annotations

import json
from typing import Any

from ..kinds import WORKING, Fact, Question, Record
from .common import BAR, Cells, Table, each


def popqa(table: Table) -> list[Record]:
    """Questions, or facts whose relation is `prop` and whose prompt is the question in its frame.

    The answer is `obj`, and `possible_answers` are its aliases; in files without these, `answer` has all of them,
    divided by `|`.

    Raises:
        UserError: rows with problems; the message lists them.
    """
    return each(table, _fact if table.kind == "fact" else _question)


def _question(cells: Cells) -> Question:
    question, (answer, *aliases) = cells.text("question"), _answers(cells)
    return Question(question, answer, aliases=tuple(aliases), subject=cells.optional("subj"))


def _fact(cells: Cells) -> Fact:
    question, (answer, *aliases) = cells.text("question"), _answers(cells)
    prompt = WORKING.replace("{}", question)
    return Fact(cells.text("subj"), cells.text("prop"), prompt, answer, tuple(aliases))


def _answers(cells: Cells) -> tuple[str, ...]:
    """The answer and its aliases, without repeats."""
    given, before = cells.require("possible_answers", "answer", "obj"), len(cells.problems)
    found = [cells.optional("obj"), *cells.members(_listed(given), "an answer")]
    distinct = tuple(dict.fromkeys(answer for answer in found if answer))
    if not distinct and given is not None and len(cells.problems) == before:
        cells.refuse("its answers are empty")
    return distinct or ("",)


def _listed(given: Any) -> Any:
    """A list that is written as JSON or divided by `|`, as a list."""
    if not isinstance(given, str):
        return given
    if given.strip().startswith("["):
        try:
            return json.loads(given)
        except ValueError:
            return given
    return given.split(BAR)
