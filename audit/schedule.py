"""Which jobs of an audit can be done now: what waits for what, and what is most urgent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ..knowledge import Case
from ..model import Model
from ..verify import Budget, Reading
from ..verify.check import Setting
from ..verify.parts import Parts
from .cost import MAKING
from .jobs import Failed, Job, not_finite
from .plan import Plan, Step
from .store import Store


@dataclass(frozen=True)
class Schedule:
    """The jobs of an audit, and what they wait for.

    - Control edits wait for the recall of the edited model, and until the readings ask for them (`Control.wanted`).
    - Checks of a control wait for its edit.
    - Checks that need what the original shows wait for that.
    - Attacks that train wait for their budget, which is found on the sibling.

    `edited`: the matrices that the audited edit changed. `barred`: controls that it does not allow.
    """

    plan: Plan
    case: Case
    store: Store
    edited: tuple[str, ...] = ()
    barred: set[str] = field(default_factory=set)

    def ready(self) -> list[Job]:
        """The jobs that can start. First what leads to the budgets, then control edits, cheap checks, other attacks."""
        return sorted([*self._makings(), *self._checkings()], key=self._urgency)

    def parts(self, job: Job) -> tuple[int, int]:
        """How many parts of the job's check are finished, and how many there are; a whole check has one."""
        if not job.part:
            return int(self._stored(job.model, job.check)), 1
        total = len(self._parts(self._step(job)).names)
        found = self.store.parts.get((job.model, job.check), {})
        return (total if self._stored(job.model, job.check) else len(found)), total

    def join(self, job: Job, model: Model) -> Reading | None:
        """The reading of a check in parts; `None` while parts are missing."""
        step = self._step(job)
        if next(self._missing(step), None) is not None:
            return None
        parts, found = self._parts(step), self.store.parts[job.model, job.check]
        failed = [result for name in parts.names if isinstance(result := found.get(name), Failed)]
        return not_finite(job.check, failed[0].reason) if failed else parts.join(model, found)

    def _makings(self) -> Iterator[Job]:
        recall = self.store.readings.get("after", {}).get("recall")
        for control in self.plan.controls if recall else ():
            if control.name not in {*self.store.edits, *self.barred} and control.wanted(self.store.readings):
                yield Job(control.name, MAKING, recall=(recall and recall.value) or 0.0)

    def _checkings(self) -> Iterator[Job]:
        for step in self.plan.steps(self.store.edits):
            if self._stored(step.model, step.check.name) or not self._can_start(step):
                continue
            whole = Job(step.model, step.check.name, setting=self._setting(step))
            if step.check.parts is None or step.check.obstacle(self.case):
                yield whole
            else:
                yield from (replace(whole, part=name) for name in self._missing(step))

    def _can_start(self, step: Step) -> bool:
        check, sibling = step.check, self.plan.sibling.name
        if step.model == sibling and sibling not in self.store.edits:
            return False
        if "original_reading" in check.needs and step.model != "before" and not self._stored("before", check.name):
            return False
        if not check.trains or step.model == sibling:
            return True
        # An attack that cannot be run on the sibling is left out; what the case lacks is said all the same.
        return self._stored(sibling, check.name) and bool(self._budget(step) or check.obstacle(self.case))

    def _setting(self, step: Step) -> Setting:
        needed = "original_reading" in step.check.needs and step.model != "before"
        original = self.store.readings["before"][step.check.name] if needed else None
        edited = self.edited if "edited" in step.check.needs else ()
        return replace(self.plan.setting(step, self._budget(step)), original_reading=original, edited=edited)

    def _budget(self, step: Step) -> Budget | None:
        """The cap on the sibling; on all other models, the budget found on the sibling. `None` if there is none."""
        cap = step.check.cap
        if cap is None or step.model == self.plan.sibling.name:
            return cap
        shallow = self.store.readings[self.plan.sibling.name][step.check.name]
        return None if shallow.value is None else cap.at(budget_steps(shallow))

    def _missing(self, step: Step) -> Iterator[str]:
        """The parts to run. One that failed settles the check as soon as all parts before it are there."""
        found = self.store.parts.get((step.model, step.check.name), {})
        for name in self._parts(step).names:
            if name not in found:
                yield name
            elif isinstance(found[name], Failed):
                return

    def _parts(self, step: Step) -> Parts:
        assert step.check.parts, f"{step.check.name} has no parts"
        return step.check.parts(self.case, self._setting(step))

    def _step(self, job: Job) -> Step:
        return next(s for s in self.plan.steps(self.store.edits) if (s.model, s.check.name) == (job.model, job.check))

    def _stored(self, model: str, check: str) -> bool:
        return check in self.store.readings.get(model, {})

    def _urgency(self, job: Job) -> tuple[bool, ...]:
        making = job.check == MAKING
        trains = any(check.trains for check in self.plan.checks if check.name == job.check)
        budgets = job.model == self.plan.sibling.name and (making or trains)
        return (job.model, job.check) != ("after", "recall"), not budgets, not making, trains


def budget_steps(shallow: Reading) -> int:
    """The number of steps within the cap after which the shallow sibling gives back most.

    The fewest steps that expose it would be too few: an edit that resists a little longer than the sibling would pass
    for a removal. The whole cap may be too many: training on other facts also wears down what it brought back.
    """
    curve: Any = shallow.details["curve"]
    means = {int(step): back for step, back in curve["forget"].items() if back is not None and step != "0"}
    return max(sorted(means), key=means.__getitem__)
