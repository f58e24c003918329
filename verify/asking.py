"""What each kind of item is asked by: the measure that a person would look at. One row of a table for each kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..knowledge import Item, score
from ..knowledge.item import Kind
from ..knowledge.scoring import answered
from ..model import chunks, encode, logits, split
from ..model.run.generate import continuations
from .metrics.rouge import cut, rouge
from .metrics.tokens import extraction_strength

if TYPE_CHECKING:
    from ..model import Model

ROWS = 64
MORE = 4  # tokens of a generation beyond those of the answer
STOPS = ("\n", "Question:", "Q:")
Measure = Callable[["Model", Sequence[Item]], list[float]]


@dataclass(frozen=True)
class Asking:
    """How one kind is asked.

    `measure`: a number from 0 to 1 for each item, asked by its main prompt. `meaning`: what this number is, to follow
    "With sealed prompts, the model ...". `rows`: the cost for one item, in forward passes of one row.
    """

    measure: Measure = field(repr=False)
    meaning: str
    rows: Callable[[Item], int] = field(repr=False)


def generations(model: Model, items: Sequence[Item]) -> list[str]:
    """The free answer to each item's prompt by greedy decoding, up to a few tokens more than the right answer."""
    lengths = [len(tail) for _, tail in split(model, [i.prompt for i in items], [i.answer for i in items])]
    order = sorted(range(len(items)), key=lambda i: lengths[i])
    out = [""] * len(items)
    for part in chunks(len(order), ROWS):
        rows = order[part]
        texts = continuations(model, [items[i].prompt for i in rows], tokens=MORE + lengths[rows[-1]])
        for i, text in zip(rows, texts, strict=True):
            out[i] = text
    return out


def _greedy(model: Model, items: Sequence[Item]) -> list[float]:
    return answered(model, items)


def _rouge(model: Model, items: Sequence[Item]) -> list[float]:
    said = [cut(text, STOPS) for text in generations(model, items)]
    return [max(rouge(text, a).rougeL_recall for a in i.answers) for text, i in zip(said, items, strict=True)]


def _verbatim(model: Model, items: Sequence[Item]) -> list[float]:
    out: list[float] = []
    for part in chunks(len(items), ROWS):
        batch = encode(model, [i.prompt for i in items[part]], [i.answer for i in items[part]])
        out += extraction_strength(logits(model, batch), batch.labels).tolist()
    return out


def _likeliest(model: Model, items: Sequence[Item]) -> list[float]:
    """Whether the right answer has the highest mean log-probability per token of its pool."""
    prompts, answers = zip(*((i.prompt, a) for i in items for a in i.pool), strict=True)
    logp = score(model, prompts, answers).logprob.tolist()
    lengths = [len(tail) for _, tail in split(model, prompts, answers)]
    each = iter([total / n for total, n in zip(logp, lengths, strict=True)])
    by_item = [[next(each) for _ in i.pool] for i in items]
    return [float(p[0] > max(p[1:])) if not any(map(math.isnan, p)) else math.nan for p in by_item]


ASKING: dict[Kind, Asking] = {
    "fact": Asking(_greedy, "gives {} of the answers in full", lambda i: len(i.answers) + len(i.longer)),
    "question": Asking(_rouge, "repeats {} of the words of an answer in order (ROUGE-L)", lambda i: 1),
    "passage": Asking(_verbatim, "continues {} of a passage word by word from its own beginning", lambda i: 1),
    "choice": Asking(_likeliest, "picks the right option in {} of the cases", lambda i: len(i.pool)),
    "pair": Asking(_likeliest, "prefers the right answer to its foil in {} of the pairs", lambda i: len(i.pool)),
}


def asked(model: Model, items: Sequence[Item]) -> list[float]:
    """What each item is asked by, at its main prompt, 0 to 1."""
    out = [0.0] * len(items)
    kinds: dict[Kind, None] = dict.fromkeys(i.kind for i in items)
    for kind in kinds:
        places = [n for n, item in enumerate(items) if item.kind == kind]
        for n, value in zip(places, ASKING[kind].measure(model, [items[n] for n in places]), strict=True):
            out[n] = value
    return out


def asked_rows(items: Sequence[Item]) -> int:
    """The cost of asking items by all of their prompts, in rows."""
    return sum(len(i.prompts) * ASKING[i.kind].rows(i) for i in items)
