"""A text that the model may have memorised."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..._util.errors import UserError
from ...model import Prompt
from ...model.prompt import takes_space
from ..item import Item
from .question import Question

WINDOW = 72  # words of a window, so that its tokens fit any model's context
EARLY, LATE = 1 / 3, 2 / 3  # where a window is cut for the working and for the sealed part, if the text is but one
LEAST = 4  # words


@dataclass(frozen=True)
class Passage:
    """A text. `start` is its lead-in, if a source divides the two; `questions` ask about it and are sealed.

    A text of up to `WINDOW` words is asked from a third of it on in the working part, and from two thirds on in the
    sealed part. A longer one is divided into windows: every other one is sealed, and each is asked from a third on.
    """

    text: str
    start: str = ""
    subject: str = ""
    questions: tuple[Question, ...] = ()

    @property
    def identity(self) -> str:
        return f"{self.start} {self.text}"

    @property
    def divides(self) -> bool:
        """Whether the text has a part to begin with and a part to continue."""
        return len(words_of(self.text)) >= (1 if self.start else 2)

    def working(self, relation: str, unit: str, frame: str) -> list[Item]:
        windows = self._windows()
        return [self._item(relation, unit, w, EARLY) for w in windows[::2]]

    def sealed(self, relation: str, unit: str, frame: str) -> list[Item]:
        windows = self._windows()
        own = [self._item(relation, unit, w, EARLY) for w in windows[1::2]]
        own = own or [self._item(relation, unit, windows[0], LATE)]
        return [*own, *(item for q in self.questions for item in q.working(relation, unit, frame))]

    def _windows(self) -> list[list[str]]:
        words = words_of(self.text)
        if not self.divides:
            raise UserError(f"the passage {self.text!r} is too short to be continued; give two words or more.")
        return [w for w in _divided(words) if len(w) >= LEAST] or [words]

    def _item(self, relation: str, unit: str, window: list[str], share: float) -> Item:
        first = window[0] == words_of(self.text)[0]
        if self.start and first and share == EARLY:
            start, rest = self.start, "".join(window)
        else:
            lead = f"{self.start} " if self.start and first else ""
            at = min(max(1, round(share * len(window))), len(window) - 1)
            start, rest = lead + "".join(window[:at]), "".join(window[at:])
        prompt = Prompt.spot(start.rstrip() if start[-1:] == " " else start, self.subject)
        return Item(self.subject, relation, prompt, rest.strip(), kind="passage", unit=unit)


def _divided(words: list[str]) -> Iterator[list[str]]:
    """Windows of nearly equal length; only one if the text is short."""
    n = max(1, round(len(words) / WINDOW))
    for i in range(n):
        yield words[len(words) * i // n : len(words) * (i + 1) // n]


def words_of(text: str) -> list[str]:
    """The words of a text, each with the space after it; its characters where the language has no spaces."""
    words = re.findall(r"\S+\s*", text.strip())
    spaced = takes_space(text.strip()[:1]) or len(words) >= max(2, len(text) / 20)
    return words if spaced else re.findall(r"\S\s*", text.strip())
