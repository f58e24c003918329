"""MUSE: Shi et al. 2024, arXiv:2407.06460."""

from __future__ import annotations

from pathlib import Path

from ..fact import Fact
from ..item import Passage
from ..rows import field, rows
from .common import QUESTION
from .questions import questions


def muse(source: str | Path, *, template: str = QUESTION, **hub: str) -> list[Fact] | list[Passage]:
    """Questions of `knowmem` as facts; `verbmem` (`prompt`, `gt`) and plain texts as passages.

    Raises:
        UserError: as `rows`, or a row in none of these forms.
    """
    table = rows(source, **hub)
    if "question" in table[0]:
        return questions(source, template=template, relation="muse", **hub)
    return [
        Passage(str(field(source, i, row, "gt", "text")), str(row.get("prompt", ""))) for i, row in enumerate(table)
    ]
