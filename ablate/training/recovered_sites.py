"""Where relearning brings an edited model's facts back: the sites that a next edit should take."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from ...knowledge import Case, Fact, Split
from ...model import Edit, Site, encode, scratch
from .relearning import relearn_

if TYPE_CHECKING:
    from ...model import Model

Locator = Callable[["Model", Case], Iterable[Site]]
DRILL = {"steps": 6, "radius": 0.1}


def recovered_sites(
    model: Model,
    case: Case,
    edit: Edit,
    locator: Locator,
    *,
    relearning: Mapping[str, float] | None = None,
    seed: int | str = 0,
) -> list[Site]:
    """Sites, the best first, at which relearning half of the forget facts brings back the other half.

    The edited model relearns half of the facts, and the locator is asked about the half that it was not taught; then
    the other way round. The two lists take turns.

    Args:
        locator: `(model, case) -> sites`, the best first. It sees a model that has relearned, and a case whose forget
            facts are the half that it was not taught.
        relearning: `{"steps": 6, "radius": 0.1}`: steps of normalised gradient descent over all weights, each so
            long. No check of `verify` relearns so.
        seed: draws the halves.

    Cost: twice the steps as full training steps over half the facts, and twice the locator's own.
    Memory: two copies of the weights.
    """
    facts, drill = list(case.forget.working), DRILL | dict(relearning or {})
    order = random.Random(f"{seed}/halves").sample(facts, len(facts))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    ranked: list[list[Site]] = []
    for taught, asked in (halves, halves[::-1]):
        with scratch(model):
            edit.write_(model)
            for step in range(int(drill["steps"])):
                relearn_(model, encode(model, *_turn(taught, step)), drill["radius"])
            ranked.append(list(locator(model, _about(case, asked))))
    return list(dict.fromkeys(s for pair in zip_longest(*ranked) for s in pair if s is not None))


def _about(case: Case, facts: Sequence[Fact]) -> Case:
    """The case with some of its forget facts alone."""
    some = tuple(sorted(facts, key=lambda f: (f.relation, f.subject)))
    return replace(case, forget=Split(some, some))


def _turn(facts: Sequence[Fact], step: int) -> tuple[list[str], list[str]]:
    """Prompts and answers, each fact behind one of its prompts in turn."""
    return [f.prompts[step % len(f.prompts)] for f in facts], [f.answer for f in facts]
