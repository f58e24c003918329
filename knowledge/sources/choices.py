"""The options of a multiple-choice item, and which of them is right."""

from __future__ import annotations

import reprlib
from typing import Any

from ..kinds import Choice
from .common import Cells

DIGITS = 9  # of a place, at most


def choice(cells: Cells, options: tuple[str, ...], right: str, *, by_text: bool = False, subject: str = "") -> Choice:
    """A multiple-choice item.

    Args:
        options: names of the column of options.
        right: the name of the column with the right one: its index from 0, a number or digits, or its letter.
        by_text: whether that may also be the option's own text.
        subject: whom the item is about.
    """
    question, given = cells.text("question"), _options(cells, options)
    return Choice(question, given, _right(cells, given, right, by_text), subject)


def _options(cells: Cells, names: tuple[str, ...]) -> tuple[str, ...]:
    cell = cells.require(*names)
    if cell is None:
        return ()
    options = tuple(cells.members(cell, "an option"))
    if not all(options):
        cells.refuse("an option is empty")
    elif len(options) < 2:
        cells.refuse(f"it has {len(options)} option, and needs at least 2")
    elif len(set(options)) < len(options):
        twice = next(option for option in options if options.count(option) > 1)
        cells.refuse(f"the option {twice!r} is given twice")
    return options


def _right(cells: Cells, options: tuple[str, ...], name: str, by_text: bool) -> int:
    """The index of the right option; 0 if there is a problem."""
    given = cells.require(name)
    if given is None or not options:
        return 0
    places = _places(given, options, by_text)
    if len(places) == 1:
        return places.pop()
    letters = f"0 to {len(options) - 1}, or a letter from A to {chr(ord('A') + len(options) - 1)}"
    what = f"{cells.column(name)!r} is {reprlib.repr(given)}"
    if places:
        cells.refuse(f"{what}, which can be an option's place or its text; give a place that is no option's text")
    else:
        cells.refuse(f"{what}; it must be {letters}{', or the text of an option' if by_text else ''}")
    return 0


def _places(given: Any, options: tuple[str, ...], by_text: bool) -> set[int]:
    """The options that a value can mean: by index, letter or text."""
    if isinstance(given, bool) or not isinstance(given, int | str):
        return set()
    if isinstance(given, int):
        return {given} & set(range(len(options)))
    text = given.strip()
    texts = {i for i, option in enumerate(options) if option == text} if by_text else set()
    return ({_place(text)} & set(range(len(options)))) | texts


def _place(text: str) -> int:
    """The place that digits or a letter name; -1 for anything else."""
    if not text.isascii() or len(text) > DIGITS:
        return -1
    if text.isdecimal():
        return int(text)
    return ord(text.upper()) - ord("A") if len(text) == 1 else -1
