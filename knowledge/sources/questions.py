"""Plain questions and answers."""

from __future__ import annotations

from pathlib import Path

from ..fact import Fact
from ..rows import field, rows
from .common import QUESTION, aliases


def questions(source: str | Path, *, template: str = QUESTION, relation: str = "question", **hub: str) -> list[Fact]:
    """Questions and answers: `question` and `answer` in each row.

    Several answers, in a list or divided by `|`, are the answer and its aliases. The subject of such a fact is the
    question itself; a row may name another one in `subject`.

    Raises:
        UserError: as `rows`, or a row without a question or an answer.
    """
    out = []
    for i, row in enumerate(rows(source, **hub)):
        question = str(field(source, i, row, "question", "text", "query"))
        answer, *others = aliases(field(source, i, row, "answer", "answers", "labels"))
        out.append(Fact(str(row.get("subject", question)), relation, template.format(question), answer, tuple(others)))
    return out
