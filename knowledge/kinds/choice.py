"""A multiple-choice question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..item import Item
from .frames import SEALED, WORKING, framed

LISTED = "Question: {}\nOptions: {options}.\nAnswer:"


@dataclass(frozen=True)
class Choice:
    """A question, its options, and the index of the right one, from 0.

    An option is asked for by its text, so that small models can be asked too. The sealed prompts are another frame, and
    the options listed in every rotation, so that no place in the list is favoured.
    """

    question: str
    options: tuple[str, ...]
    right: int
    subject: str = ""

    @property
    def answer(self) -> str:
        """The right option."""
        return self.options[self.right]

    @property
    def identity(self) -> str:
        return f"{self.question} {self.answer}"

    def working(self, relation: str, unit: str, frame: str) -> list[Item]:
        return [self._item(relation, unit, [frame or WORKING])]

    def sealed(self, relation: str, unit: str, frame: str) -> list[Item]:
        return [self._item(relation, unit, [SEALED, *self._rotations()])]

    def _rotations(self) -> Iterator[str]:
        """A frame for each rotation of the options."""
        for i in range(len(self.options)):
            yield LISTED.replace("{options}", "; ".join([*self.options[i:], *self.options[:i]]))

    def _item(self, relation: str, unit: str, frames: list[str]) -> Item:
        first, *others = (framed(frame, self.question, self.subject) for frame in frames)
        foils = tuple(o for i, o in enumerate(self.options) if i != self.right)
        return Item(self.subject, relation, first, self.answer, (), foils, tuple(others), "choice", unit)
