"""The sites at which relearning brings an edited model's facts back: the sites for the next edit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from ...knowledge import Case, Item, Split, accepts_spec
from ...model import Edit, Site, encode, scratch
from .relearning import relearning_step_

if TYPE_CHECKING:
    from ...model import Model

Locator = Callable[["Model", Case], Iterable[Site]]


@accepts_spec
def recovered_sites(
    model: Model,
    case: Case,
    edit: Edit,
    locator: Locator,
    *,
    steps: int = 6,
    radius: float = 0.1,
    seed: int | str = 0,
) -> list[Site]:
    """Sites, the best first, at which relearning half of the forget facts brings back the other half.

    The edited model relearns half of the facts, and the locator scores the sites for the other half; then the halves
    swap. The result alternates between the two lists.

    Args:
        locator: `(model, case) -> sites`, best first. It gets a model that has relearned half of the forget facts, and
            a case whose forget facts are the other half.
        steps, radius: the number of relearning steps and the length of each. Relearning is normalised gradient descent
            over all weights; no check of `verify` relearns in this way.
        seed: draws the halves.

    Cost: twice `steps` full training steps over half of the facts, and twice the locator's own.
    Memory: two copies of the weights.
    """
    facts = list(case.forget.working)
    order = random.Random(f"{seed}/halves").sample(facts, len(facts))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    ranked: list[list[Site]] = []
    for taught, asked in (halves, halves[::-1]):
        with scratch(model):
            edit.write_(model)
            for step in range(steps):
                relearning_step_(model, encode(model, *_turn(taught, step)), radius)
            ranked.append(list(locator(model, _restricted(case, asked))))
    return list(dict.fromkeys(s for pair in zip_longest(*ranked) for s in pair if s is not None))


def _restricted(case: Case, facts: Sequence[Item]) -> Case:
    """The case with only these of its forget facts."""
    forget = tuple(sorted(facts, key=lambda f: (f.relation, f.unit)))
    return replace(case, forget=Split(forget, forget))


def _turn(facts: Sequence[Item], step: int) -> tuple[list[str], list[str]]:
    """Prompts and answers; each fact cycles through its prompts."""
    return [f.prompts[step % len(f.prompts)] for f in facts], [f.answer for f in facts]
