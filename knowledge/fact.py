"""One piece of knowledge, and a test of whether its question gives it away."""

from __future__ import annotations

import difflib
import unicodedata
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Fact:
    """A fact that a model may know: a subject, a prompt that asks for the answer, and the answer.

    `aliases` count as right answers too. `foils` are wrong answers of the same kind. `paraphrases` are
    other prompts for the same answer. An answer follows its prompt after a space.
    """

    subject: str
    relation: str
    prompt: str
    answer: str
    aliases: tuple[str, ...] = ()
    foils: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompt and its paraphrases."""
        return (self.prompt, *self.paraphrases)

    @property
    def answers(self) -> tuple[str, ...]:
        """The answer and its aliases."""
        return (self.answer, *self.aliases)

    def asked(self, prompt: str) -> Fact:
        """The same fact with another prompt and without paraphrases."""
        return replace(self, prompt=prompt, paraphrases=())


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
