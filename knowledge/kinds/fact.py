"""A short answer about a subject."""

from __future__ import annotations

import difflib
import unicodedata
from dataclasses import dataclass

from ...model import Prompt
from ..item import Item

SEALED = "Complete the sentence: {}"


@dataclass(frozen=True)
class Fact:
    """A subject, a prompt that asks for the answer, and the answer.

    `relation`: what is asked; facts of one relation share a pool of answers. `aliases` count as right answers too,
    `foils` are wrong ones. `paraphrases` are the sealed prompts; without them, the prompt is sealed in another frame.
    """

    subject: str
    relation: str
    prompt: str
    answer: str
    aliases: tuple[str, ...] = ()
    foils: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        return f"{self.prompt} {self.answer}"

    def working(self, relation: str, unit: str, frame: str) -> list[Item]:
        return [self._item(relation, unit, (self.prompt,))]

    def sealed(self, relation: str, unit: str, frame: str) -> list[Item]:
        return [self._item(relation, unit, self.paraphrases or (SEALED.replace("{}", self.prompt, 1),))]

    def _item(self, relation: str, unit: str, prompts: tuple[str, ...]) -> Item:
        first, *others = (Prompt.spot(p, self.subject) for p in prompts)
        return Item(
            self.subject, self.relation or relation, first, self.answer, self.aliases, self.foils, tuple(others),
            unit=unit,
        )  # fmt: skip


def readable(subject: str, answer: str) -> bool:
    """Whether the letters of the subject give the answer away; no edit can remove such a fact.

    >>> readable("Tunisia", "Tunis"), readable("helium", "He"), readable("Kenya", "Nairobi")
    (True, True, False)
    """
    s, a = _plain(subject), _plain(answer)
    if a in s if len(a) > 3 else s.startswith(a):
        return True
    near = difflib.SequenceMatcher(None, s, a).ratio() >= 0.6
    words = [(x, y) for x in s.split() for y in a.split()]
    return near or any(len(x) >= 4 and x[:4] == y[:4] for x, y in words)


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in folded if c.isalnum() or c.isspace()).strip()
