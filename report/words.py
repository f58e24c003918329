"""How the report speaks of each kind of item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..knowledge.item import Kind
from ..verify import Reading
from ..verify.asking import ASKING


@dataclass(frozen=True)
class Words:
    """The words for one kind.

    Attributes:
        things: what the items are.
        shown: what is said of those that the model still shows.
        keep: the items to keep, at the start of a label.
        near, far: where these are: nearest to the target, and elsewhere.
        unit: what is resampled.
        share: what a share of them says.
    """

    things: str
    shown: str
    keep: str = "To keep"
    near: str = "nearest sets"
    far: str = "other sets"
    unit: str = "unit"
    share: str = "A share says how much of an item still shows, by the measure of its kind."

    @property
    def labels(self) -> dict[str, str]:
        """The labels of rows, by field of `Column`."""
        return {
            "forget": f"{self.things.capitalize()} to forget, {self.shown}",
            "retain_same": f"{self.keep}, {self.near}",
            "retain_other": f"{self.keep}, {self.far}",
        }

    @property
    def groups(self) -> dict[str, str]:
        """The labels of groups in a figure, by field of `Column`."""
        return {
            "forget": f"{self.things} to forget",
            "retain_same": f"to keep, {self.near}",
            "retain_other": f"to keep, {self.far}",
        }


def _share(kind: Kind) -> str:
    return f"A share says: the model {ASKING[kind].meaning.format('this share')}."


FACTS = Words("facts", "answered", "Facts to keep", "same relation", "other relations", "subject", _share("fact"))
MIXED = Words("items", "shown")
WORDS: dict[Kind, Words] = {
    "fact": FACTS,
    "question": Words("questions", "answered", share=_share("question")),
    "passage": Words("passages", "continued", share=_share("passage")),
    "choice": Words("choices", "answered right", share=_share("choice")),
    "pair": Words("pairs", "answered right", share=_share("pair")),
}


def words_of(checks: Mapping[str, Reading]) -> Words:
    """The words for what `recall` asked, whose sentence says what it measured; those for facts without a reading."""
    if "recall" not in checks or checks["recall"].value is None:
        return FACTS
    said = checks["recall"].meaning
    fits: list[Kind] = [
        kind for kind, asking in ASKING.items() if all(part in said for part in asking.meaning.split("{}"))
    ]
    return WORDS[fits[0]] if fits else MIXED
