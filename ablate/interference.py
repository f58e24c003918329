"""Whether a later erasure undoes an earlier one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..knowledge import Case, CaseSpec, Item, known, resolved
from ..model import Edit

if TYPE_CHECKING:
    from ..model import Model


@dataclass(frozen=True)
class Interference:
    """How one erasure fared under the later ones.

    `alone`, `now`: the share of the working prompts about its forget facts that the model answers in full, right after
    its own edit and after all edits. `back`: the subjects for which the model answered no prompt right after the edit,
    and answers at least one after all edits.
    """

    case: str
    alone: float
    now: float
    back: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.back


def check_interference(model: Model, erasures: Sequence[tuple[Case | CaseSpec, Edit]]) -> list[Interference]:
    """Apply erasures one after another, and ask each one's forget facts again at the end.

    This asks the working prompts, on which the edits were made. It says whether a later edit undid an earlier one;
    `verify` says whether anything was removed. Cost: two forward passes over each case's forget facts and prompts.

    Raises:
        UserError: an edit that shares weights with an earlier one but was not made on top of it, see `Edit.applied`.
    """
    cases = [resolved(model, case) for case, _ in erasures]
    before: list[dict[str, list[bool]]] = []
    with ExitStack() as stack:
        for case, (_, edit) in zip(cases, erasures, strict=True):
            stack.enter_context(edit.applied(model))
            before.append(answered(model, case.forget.working))
        after = [answered(model, case.forget.working) for case in cases]
    return [
        Interference(case.name, share(a), share(b), tuple(s for s in a if any(b[s]) and not any(a[s])))
        for case, a, b in zip(cases, before, after, strict=True)
    ]


def answered(model: Model, items: Sequence[Item]) -> dict[str, list[bool]]:
    """Whether the model answers each prompt of some items, by unit. Cost: one pass over all prompts and pools."""
    right = iter(known(model, [one for item in items for one in item.each()]))
    found: dict[str, list[bool]] = {}
    for item in items:
        found.setdefault(item.unit, []).extend(next(right) for _ in item.prompts)
    return found


def share(answers: Mapping[str, Sequence[bool]]) -> float:
    """The share of all prompts that were answered, 0 to 1."""
    every = [right for prompts in answers.values() for right in prompts]
    return sum(every) / len(every)
