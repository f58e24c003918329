"""What relearning may teach beside the facts, in every step: retain items of the relation, or neutral text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from .._util.errors import UserError
from ..knowledge import Case, Item, neutral_sealed
from ..model import Batch, encode, encode_texts

if TYPE_CHECKING:
    from ..model import Model

MOST = 48  # rows
Beside = Literal["nothing", "retain", "text"]


def material(case: Case, beside: Beside) -> Sequence[Item] | Sequence[str]:
    """Retain items of the forgotten relations, drawn by the seed, or neutral texts; at most `MOST`."""
    if beside == "nothing":
        return ()
    if beside == "text":
        return neutral_sealed(case)[:MOST]
    items = case.same_relation([*case.retain.working, *case.retain.sealed])
    return random.Random(f"{case.seed}/beside").sample(items, min(MOST, len(items)))


def batches_beside(model: Model, case: Case, beside: Beside) -> list[Batch]:
    """The material as batches: one with labels on the items' answers, or one on all tokens of the texts.

    Raises:
        UserError: a case without such material.
    """
    found = material(case, beside)
    if not found and beside != "nothing":
        what = "items to keep of the forgotten relations" if beside == "retain" else "neutral text"
        raise UserError(f"{case.name!r} has no {what} to teach beside the facts; add some, or leave out `beside`.")
    items = [each for each in found if isinstance(each, Item)]
    texts = [each for each in found if isinstance(each, str)]
    asked = [encode(model, [i.prompt for i in items], [i.answer for i in items])] if items else []
    return asked + ([encode_texts(model, texts)] if texts else [])
