"""RWKU: Jin et al. 2024, "RWKU: Benchmarking Real-World Knowledge Unlearning", arXiv:2406.10890."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ..kinds import Passage, Question, Record
from ..rows import Row
from .common import Cells, Table, each, passage

CLOZE = "Fill in the blank. {}"
BLANK = re.compile(r"__+")


def rwku(table: Table) -> list[Record]:
    """Probes as questions (`query`, `answer`), membership files as passages (`text`).

    A cloze is asked as "Fill in the blank. ...". A probe is about its `neighbor` or `subject`. A passage is about its
    `subject` if most passages with that subject mention it: the files of passages to retain name the target too,
    though they are about others.

    Raises:
        UserError: rows with problems; the message lists them.
    """
    if table.kind == "question":
        return each(table, _question)
    about = {subject: _is_about(subject, texts) for subject, texts in _by_subject(table).items()}
    return each(table, lambda cells: _passage(cells, about))


def _question(cells: Cells) -> Question:
    query = cells.text("query")
    question = CLOZE.replace("{}", query) if BLANK.search(query) else query
    return Question(question, cells.text("answer"), subject=cells.optional("neighbor", "subject"))


def _passage(cells: Cells, about: Mapping[str, bool]) -> Passage:
    subject = cells.optional("subject")
    return passage(cells, cells.text("text"), subject=subject if about.get(subject, False) else "")


def _by_subject(table: Table) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for subject, text in _mentions(row for _, row in table.rows):
        found.setdefault(subject, []).append(text)
    return found


def _mentions(rows: Iterator[Row]) -> Iterator[tuple[str, str]]:
    """The subject and the text of each row that has both."""
    for row in rows:
        if isinstance(row.get("subject"), str) and isinstance(row.get("text"), str):
            yield row["subject"].strip(), row["text"]


def _is_about(subject: str, texts: list[str]) -> bool:
    """Whether half of the texts mention a word of the name: those after the first often have only one."""
    words = [re.escape(word) for word in re.findall(r"\w+", subject) if word[0].isupper() and len(word) > 1]
    if not words:
        return True
    name = re.compile(rf"\b(?:{'|'.join(words)})\b")
    return sum(bool(name.search(text)) for text in texts) >= len(texts) / 2
