"""RWKU: Jin et al. 2024, arXiv:2406.10890."""

from __future__ import annotations

from pathlib import Path

from ..fact import Fact
from ..item import Passage
from ..rows import field, rows
from .common import QUESTION

CLOZE = "Fill in the blank. {}\nAnswer:"
BLANK = "___"


def rwku(source: str | Path, *, template: str = QUESTION, cloze: str = CLOZE, **hub: str) -> list[Fact] | list[Passage]:
    """Forget and neighbour probes as facts, the `mia` files as passages.

    A cloze that ends in its blank is asked as it stands; one with the blank inside is put into `cloze`. The relation is
    the probe's type, and the subject of a neighbour probe is the neighbour.

    Raises:
        UserError: as `rows`, or a row in none of these forms.
    """
    table = rows(source, **hub)
    if "query" not in table[0]:
        return [
            Passage(str(field(source, i, row, "text")), subject=str(row.get("subject", "")))
            for i, row in enumerate(table)
        ]
    return [
        Fact(
            str(field(source, i, row, "neighbor", "subject")), str(row.get("type", "rwku")),
            _prompt(str(field(source, i, row, "query")), template, cloze), str(field(source, i, row, "answer")).strip(),
        )
        for i, row in enumerate(table)
    ]  # fmt: skip


def _prompt(query: str, template: str, cloze: str) -> str:
    if BLANK not in query:
        return template.format(query)
    before, _, after = query.partition(BLANK)
    return before.strip() if not after.strip(" _.") else cloze.format(query)
