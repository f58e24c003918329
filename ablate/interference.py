"""A later erasure must not undo an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..knowledge import Case, CaseSpec, recalled, resolved
from ..model import Edit

if TYPE_CHECKING:
    from ..model import Model


@dataclass(frozen=True)
class Interference:
    """What became of one erasure under those after it.

    `alone` and `now`: share of the working prompts about its forget facts that are answered in full when its own edit
    has just been put in place, and when all have; `back`: subjects of which no prompt was answered then and one is now.
    """

    case: str
    alone: float
    now: float
    back: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.back


def check_interference(model: Model, erasures: Sequence[tuple[Case | CaseSpec, Edit]]) -> list[Interference]:
    """Put erasures in place one after another, and ask each one's forget facts again at the end.

    Asked are the working prompts, which the edits have seen: it tells whether a later edit undid an earlier one, and
    whether anything was removed is for `verify`. Cost: two forward passes over each case's forget facts and prompts.

    Raises:
        UserError: an edit that was neither made on those before it nor is apart from them, see `Edit.applied`.
    """
    cases = [resolved(model, case) for case, _ in erasures]
    before: list[dict[str, list[bool]]] = []
    with ExitStack() as stack:
        for case, (_, edit) in zip(cases, erasures, strict=True):
            stack.enter_context(edit.applied(model))
            before.append(_answered(model, case))
        after = [_answered(model, case) for case in cases]
    return [
        Interference(case.name, _share(a), _share(b), tuple(s for s in a if any(b[s]) and not any(a[s])))
        for case, a, b in zip(cases, before, after, strict=True)
    ]


def _answered(model: Model, case: Case) -> dict[str, list[bool]]:
    """By subject, which of its working prompts are answered."""
    facts = case.forget.working
    right = iter(recalled(model, [f.asked(p) for f in facts for p in f.prompts]))
    return {f.subject: [next(right) for _ in f.prompts] for f in facts}


def _share(answered: dict[str, list[bool]]) -> float:
    every = [ok for of in answered.values() for ok in of]
    return sum(every) / len(every)
