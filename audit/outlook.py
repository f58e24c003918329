"""What an audit of a case cannot judge, known before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..knowledge import Case, neutral_sealed
from ..verify.check import Check, Profile
from ..verify.judge.statistics import subjects_needed
from ..verify.judge.thresholds import DELTA, SUBJECTS
from .plan import Plan


def outlook(case: Case, *, profile: Profile = "quick", checks: Sequence[Check] | None = None) -> list[str]:
    """The checks that cannot be run on a case, and the conditions of a verdict that it cannot meet, as sentences.

    An audit of the case goes on without them, to the end.

    Args:
        profile, checks: as in `loka.audit`.

    Raises:
        UserError: an unknown profile.
    """
    return [*_obstacles(case, Plan.of(profile, checks=checks).on(case)), *_unmet(case)]


def _obstacles(case: Case, plan: Plan) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for check in plan.checks:
        if obstacle := check.obstacle(case):
            found.setdefault(obstacle, []).append(check.name)
    yield from (f"Not measured: {', '.join(names)}. {obstacle}" for obstacle, names in found.items())


def _unmet(case: Case) -> Iterator[str]:
    n, needed = len({i.unit for i in case.forget.sealed}), subjects_needed(DELTA)
    if n < SUBJECTS:
        yield f"The case forgets {n} independent subject{'s' if n > 1 else ''}; any verdict needs {SUBJECTS}."
    elif n < needed:
        yield f"The case forgets {n} independent subjects; the verdict 'removed' needs {needed}."
    if not case.retain.sealed:
        yield "The case has nothing sealed to keep, so damage cannot be judged, and the verdict is never 'removed'."
    if not neutral_sealed(case):
        yield "The sealed neutral text is empty, so damage to plain text cannot be judged; any verdict needs it."
