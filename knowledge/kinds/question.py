"""A question with a free answer."""

from __future__ import annotations

from dataclasses import dataclass

from ..item import Item
from .frames import SEALED, WORKING, framed


@dataclass(frozen=True)
class Question:
    """A question and its answer.

    `paraphrases`: the question in other words; they are sealed. Without them, the question is sealed in another frame.
    `wrong`: wrong answers of the same form. `aliases`: other right answers. `subject`: whom the question is about.
    `rephrased`: the answer in other words.
    """

    question: str
    answer: str
    paraphrases: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    subject: str = ""
    rephrased: str = ""

    @property
    def identity(self) -> str:
        return f"{self.question} {self.answer}"

    def working(self, relation: str, unit: str, frame: str) -> list[Item]:
        return [self._item(relation, unit, [(frame or WORKING, self.question)])]

    def sealed(self, relation: str, unit: str, frame: str) -> list[Item]:
        asked = [(frame or WORKING, q) for q in self.paraphrases] or [(SEALED, self.question)]
        return [self._item(relation, unit, asked)]

    def _item(self, relation: str, unit: str, asked: list[tuple[str, str]]) -> Item:
        first, *others = (framed(frame, question, self.subject) for frame, question in asked)
        return Item(
            self.subject, relation, first, self.answer, self.aliases, self.wrong, tuple(others), "question", unit,
            rephrased=self.rephrased,
        )  # fmt: skip
