"""A prompt and its counterfactual: a circuit task."""

from __future__ import annotations

from dataclasses import dataclass

from ...model import Prompt
from ..item import Item


@dataclass(frozen=True)
class Pair:
    """A clean prompt, its answer, a counterfactual prompt, and the answer that is right there.

    `counterfactual`: a prompt of the same form. `foil`: its answer. Both parts of a case ask the clean prompt.
    """

    clean: str
    counterfactual: str
    answer: str
    foil: str
    subject: str = ""

    @property
    def identity(self) -> str:
        return f"{self.clean} {self.answer}"

    def working(self, relation: str, unit: str, frame: str) -> list[Item]:
        prompt = Prompt.spot(self.clean, self.subject)
        return [
            Item(
                self.subject, relation, prompt, self.answer, (), (self.foil,), (), "pair", unit,
                counterfactual=self.counterfactual,
            )
        ]  # fmt: skip

    def sealed(self, relation: str, unit: str, frame: str) -> list[Item]:
        return self.working(relation, unit, frame)
