"""The measures that benchmarks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from ...knowledge import Item
from ..asking import STOPS, generations
from ..metrics.conventions import OPEN_UNLEARNING
from ..metrics.rouge import Rouge, cut, rouge

if TYPE_CHECKING:
    from ...model import Model

F1: Callable[[Rouge], float] = attrgetter("rougeL_f1")
RECALL: Callable[[Rouge], float] = attrgetter("rougeL_recall")


def overlaps(model: Model, items: Sequence[Item], measure: Callable[[Rouge], float]) -> list[float]:
    """ROUGE-L of the model's free answer, or continuation, with the right answer nearest to it.

    Words are those of the benchmarks' own code.
    """
    said = generations(model, items)
    texts = [text if i.kind == "passage" else cut(text, STOPS) for text, i in zip(said, items, strict=True)]
    return [
        max(measure(rouge(t, a, convention=OPEN_UNLEARNING)) for a in i.answers)
        for t, i in zip(texts, items, strict=True)
    ]


def mean(values: Sequence[float]) -> float | None:
    """The mean; `None` if there are no values."""
    return float(np.mean(values)) if len(values) else None
