"""The item: everything that is located, edited or asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ..model import Prompt

Kind = Literal["fact", "question", "passage", "choice", "pair"]


@dataclass(frozen=True)
class Item:
    """A prompt, the answer that continues it, wrong answers to compare with, and other ways to ask.

    Attributes:
        subject: whom or what the item is about.
        relation: the relation of a fact, or the name of the set that the item belongs to.
        prompt: the main prompt. A plain string is searched for the subject; a `Prompt` knows where it stands.
        answer: the right answer. A space before it is added where the language has one (`loka.model.join`).
        aliases: other right answers.
        foils: wrong answers.
        paraphrases: other prompts for the same answer.
        kind: how the item was made, which decides how it is asked and compared (`loka.knowledge.KINDS`).
        unit: the unit of resampling that the item belongs to; the subject by default.
        counterfactual: a prompt to which another answer is right, where one is given.
        rephrased: the right answer in other words, for the truth ratio.
        rivals: wrong answers of the pool in which a right one stands, as "New" and "York" stand in "New York".
    """

    subject: str
    relation: str
    prompt: Prompt
    answer: str
    aliases: tuple[str, ...] = ()
    foils: tuple[str, ...] = ()
    paraphrases: tuple[Prompt, ...] = ()
    kind: Kind = "fact"
    unit: str = ""
    counterfactual: str = ""
    rephrased: str = ""
    rivals: tuple[str, ...] = field(default=(), repr=False)  # they follow from the case, whose digest is of the rest

    def __post_init__(self) -> None:
        made = {
            "prompt": Prompt.spot(self.prompt, self.subject),
            "paraphrases": tuple(Prompt.spot(p, self.subject) for p in self.paraphrases),
            "unit": self.unit or self.subject,
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompt and its paraphrases."""
        return (self.prompt, *self.paraphrases)

    @property
    def answers(self) -> tuple[str, ...]:
        """The answer and its aliases."""
        return (self.answer, *self.aliases)

    @property
    def pool(self) -> tuple[str, ...]:
        """The answer and its foils."""
        return (self.answer, *self.foils)

    @property
    def longer(self) -> tuple[str, ...]:
        """The rivals that begin with a right answer, so that decoding may give both."""
        return tuple(rival for rival in self.rivals if rival.startswith(self.answers))

    def asked(self, prompt: Prompt) -> Item:
        """The same item with another prompt and without paraphrases."""
        return replace(self, prompt=prompt, paraphrases=())

    def each(self) -> list[Item]:
        """The item once for each of its prompts."""
        return [self.asked(p) for p in self.prompts]
