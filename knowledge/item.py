"""The other items of a case besides facts: texts and multiple-choice items."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Passage:
    """A text to extract or to test for membership. `start` is its lead-in, if a benchmark divides the two."""

    text: str
    start: str = ""
    subject: str = ""


@dataclass(frozen=True)
class Choice:
    """A multiple-choice item; `right` is the index of the right option."""

    question: str
    options: tuple[str, ...]
    right: int

    @property
    def answer(self) -> str:
        """The right option."""
        return self.options[self.right]
