"""Fact completion in twenty languages: Schott et al. 2023, "Polyglot or Not?", arXiv:2305.13675."""

from __future__ import annotations

from ..kinds import Fact, Record
from .common import Cells, Table, each, spelled, without

BREAK = "<br>"


def fact_completion(table: Table) -> list[Record]:
    """Facts: `stem`, the answer in `true`, foils in `false`, `relation`, and the two ends, `subject` and `object`.

    `<br>` divides several forms of a stem, and several foils. The first form is the prompt. Where the answer is the
    `subject` of the relation, the stem is about its `object`.

    Raises:
        UserError: rows with problems; the message lists them.
    """
    return each(table, _fact)


def _fact(cells: Cells) -> Fact:
    prompt, *others = _divided(cells.text("stem")) or [""]
    answer, subject = cells.text("true"), cells.text("subject")
    foils = without(_divided(cells.text("false")), answer)
    if answer == subject:
        subject = cells.text("object")
    return Fact(spelled(subject, prompt), cells.optional("relation"), prompt, answer, (), foils, tuple(others))


def _divided(text: str) -> list[str]:
    """The distinct parts of a text."""
    return list(dict.fromkeys(part.strip() for part in text.split(BREAK) if part.strip()))
