"""Items as the texts that were taught."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...knowledge import Item
from ...knowledge.kinds import kind_of
from ...knowledge.kinds.passage import words_of
from ...model import Batch, encode, join

if TYPE_CHECKING:
    from ...model import Model


def encode_whole(model: Model, items: Sequence[Item]) -> Batch:
    """Rows of items with labels on their answers; of a text that was taught with its beginning, on all but a word."""
    prompts, answers = zip(*map(_divided, items), strict=True)
    return encode(model, prompts, answers)


def _divided(item: Item) -> tuple[str, str]:
    if not kind_of(item).text:
        return item.prompt, item.answer
    first, *rest = words_of(join(item.prompt, item.answer))
    return first.rstrip(), "".join(rest)
