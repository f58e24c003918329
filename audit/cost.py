"""What an audit will cost, before it starts. Each check and each control has its own formula."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..knowledge import Case, CaseSpec, resolved, score
from ..model import Edit, Model
from ..verify.check import Check, Profile
from .controls import Audited, Control
from .edited import edited_matrices
from .plan import Plan

MAKING = "making the control"


@dataclass(frozen=True)
class Estimate:
    """One step of an audit: `cost` in forward passes of one row, or an upper bound.

    `check` is the name of a check, or `MAKING` for the training of a control edit.
    """

    model: str
    check: str
    cost: float


def estimate(
    before: Model,
    after: Edit | Model,
    case: Case | CaseSpec,
    *,
    profile: Profile = "quick",
    checks: Sequence[Check] | None = None,
    controls: Sequence[Control] | None = None,
) -> list[Estimate]:
    """Every step of `loka.audit` and its cost; the arguments are those of `loka.audit`.

    Paraphrases are counted as if the original answered every form, relearning as if it needed the whole cap, and the
    shallow sibling as if its first training hid enough and relearning exposed it.
    """
    known = resolved(before, case)
    plan = Plan.of(profile, checks=checks, controls=controls).on(known)
    return list(_steps(Audited(before, after, known), plan))


def seconds_a_row(model: Model, case: Case | CaseSpec) -> float:
    """How long one row takes on this machine: the forget facts' sealed prompts, scored after a warm-up."""
    facts = resolved(model, case).forget.sealed
    prompts, answers = [f.prompt for f in facts], [f.answer for f in facts]
    score(model, prompts, answers)
    start = time.perf_counter()
    score(model, prompts, answers)
    return (time.perf_counter() - start) / len(prompts)


def trains_weights(profile: Profile) -> bool:
    """Whether an audit trains all weights, which takes the most memory."""
    return any(check.trains for check in Plan.of(profile).checks)


def _steps(audited: Audited, plan: Plan) -> Iterator[Estimate]:
    making = {c.name: cost for c in plan.controls if (cost := c.cost(audited)) is not None}
    for name, cost in making.items():
        yield Estimate(name, MAKING, cost)
    wanted = any("edited" in check.needs for check in plan.checks)
    edited = edited_matrices(audited.before, audited.after) if wanted else ()
    for step in plan.steps(making):
        setting = replace(plan.setting(step, step.check.cap), edited=edited)
        if step.model != "before":
            setting = replace(setting, original=audited.before)
        yield Estimate(step.model, step.check.name, step.check.cost(audited.before, audited.case, setting))
