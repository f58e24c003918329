"""The table of kinds. Everything that depends on the kind of an item reads it here."""

from __future__ import annotations

from dataclasses import dataclass

from ..item import Item, Kind
from .choice import Choice
from .fact import Fact, readable
from .frames import SEALED, WORKING
from .pair import Pair
from .passage import Passage
from .question import Question
from .record import Record


@dataclass(frozen=True)
class KindRow:
    """One kind.

    Attributes:
        name: its name in case files.
        record: the class of its records.
        long: whether answers are long, so that they are compared by the mean over their tokens.
        shared: whether the answers of one relation are the pool of all its items; otherwise each item has its own.
        greedy: whether an item is known only if greedy decoding gives its whole answer; otherwise the right answer must
            hold more than half of its pool's probability.
        text: whether prompt and answer are two parts of one text, which was taught as a whole.
    """

    name: Kind
    record: type
    long: bool = False
    shared: bool = False
    greedy: bool = False
    text: bool = False


KINDS: dict[Kind, KindRow] = {
    row.name: row
    for row in (
        KindRow("fact", Fact, shared=True, greedy=True),
        KindRow("question", Question, long=True),
        KindRow("passage", Passage, long=True, text=True),
        KindRow("choice", Choice, long=True),
        KindRow("pair", Pair),
    )
}


def kind_of(item: Item) -> KindRow:
    """The row of an item's kind."""
    return KINDS[item.kind]


__all__ = [
    "KINDS",
    "SEALED",
    "WORKING",
    "Choice",
    "Fact",
    "KindRow",
    "Pair",
    "Passage",
    "Question",
    "Record",
    "kind_of",
    "readable",
]
