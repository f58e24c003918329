"""The units of resampling: how samples name them, and how many of their prompts a model answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..knowledge import Fact, recalled

if TYPE_CHECKING:
    from ..model import Model


def unit_key(fact: Fact) -> str:
    """The name of a fact's unit in samples: `relation/subject`."""
    return f"{fact.relation}/{fact.subject}"


def recall_by_unit(model: Model, facts: Sequence[Fact]) -> dict[str, float]:
    """The share of each fact's prompts that get the whole answer, by `relation/subject`."""
    prompts = [f.asked(p) for f in facts for p in f.prompts]
    right = iter(recalled(model, prompts))
    return {unit_key(f): float(np.mean([next(right) for _ in f.prompts])) for f in facts}
