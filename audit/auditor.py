"""Audit an edited model against its original, with the controls that need an edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import verify
from .._util.errors import UserError
from ..knowledge import Case, CaseSpec, resolved
from ..model import Edit, Model, Runner, in_turn
from ..verify import Verdict
from ..verify.check import Check, Profile
from .controls import Control, second_sibling_reasons
from .cost import MAKING
from .edited import edited_matrices
from .jobs import AuditTask, ChangeFile, Desk, Job
from .plan import Plan, check_names, check_own
from .resolve import resolve
from .schedule import Schedule
from .store import Store
from .summary import grades, summarise

Progress = Callable[[str, int, int], None]


def audit(
    before: Model,
    after: Edit | Model | str | Path,
    case: Case | CaseSpec,
    *,
    profile: Profile = "quick",
    store: Store | None = None,
    progress: Progress | None = None,
    checks: Sequence[Check] | None = None,
    controls: Sequence[Control] | None = None,
    runner: Runner = in_turn,
) -> Verdict:
    """Measure the original, the edited model and the controls, and give a verdict.

    Controls: the twins in every check; a shallow sibling (the same objective on the last two layers, which only hides
    the facts: every attack must expose it, and the attack's budget is found on it alone); a second one by `npo`, where
    relearning cannot expose the first; and, if `after` is an edit of LOKA's, the same method on as many random sites.

    Args:
        after: an edit of `before`, a model, or the path or hub id of one.
        profile: `quick` asks in many ways, probes and relearns. `standard` adds extraction, the logit lens, depth,
            similarity, quantized weights, the ablated direction of the edit, components and rows of the edited matrices
            taken out, beginnings of answers, soft prompts and benign fine-tuning. `full` draws more samples, and
            relearns with three learning rates on three partitions of the facts, with LoRA, with SGD, and with other
            data beside the facts.
        store: readings and control edits found there are not made again; new ones are added.
        runner: who does the jobs: `loka.model.in_turn`, in this process, or a `loka.pipeline.Pool`. The result is the
            same bit for bit where the threads are as many.
        checks, controls: tables that take the place of `loka.verify.CHECKS` and `loka.audit.controls.CONTROLS`. The
            caps of `CHECKS` fit SmolLM2; `checks=loka.verify.capped({"relearn": Budget(8, 1e-3)})` sets others. Within
            its cap, each attack uses the number of steps that brings back most of the shallow sibling's answers.

    Raises:
        UserError: a model with another tokenizer or shape than `before`, or an unknown profile, check or control,
            also one that the store has readings of; checks or controls that are not LOKA's own for
            other processes.
    """
    plan = Plan.of(profile, checks=checks, controls=controls)
    if not any(check.name == "recall" for check in plan.checks):
        raise UserError("The table of checks lacks 'recall', which every audit needs; add it.")
    if runner is not in_turn:
        check_own(plan)
    store = store or Store()
    check_names(store.readings, plan.table, plan.controls, "the store")
    after, known = resolve(before, after), resolved(before, case)
    plan = plan.on(known)
    edited = edited_matrices(before, after) if any("edited" in check.needs for check in plan.checks) else ()
    auditor = _Auditor(before, after, Schedule(plan, known, store, edited), progress)
    try:
        runner(auditor)
        auditor.check_sibling()
        return auditor.verdict()
    finally:
        store.tidy()


@dataclass(frozen=True)
class _Auditor:
    """The work of an audit. Jobs are done here, or in a process that gets their task."""

    before: Model
    after: Edit | Model
    schedule: Schedule
    progress: Progress | None

    @property
    def store(self) -> Store:
        return self.schedule.store

    def ready(self) -> list[Job]:
        return self.schedule.ready()

    def run(self, job: Job) -> Any:
        plan, step = self.schedule.plan, self._report(job)
        return Desk(self.before, self.schedule.case, self._change, plan.table, plan.controls).do(job, step)

    def task(self, job: Job) -> AuditTask:
        self._report(job)
        name = "after" if job.check == MAKING else job.model
        return AuditTask(job, self.schedule.case, None if name == "before" else self._file(name))

    def done(self, job: Job, result: Any, seconds: float) -> None:
        if job.check == MAKING:
            if result is None:
                self.schedule.barred.add(job.model)
            else:
                self.store.keep_edit(job.model, result, seconds=seconds)
        elif not job.part:
            self.store.keep(job.model, result, seconds=seconds)
        elif job.check not in self.store.readings.get(job.model, {}):  # a part that failed has settled it otherwise
            self.store.keep_part(job.model, job.check, job.part, result, seconds=seconds)
            if reading := self.schedule.join(job, self.before):
                self.store.keep(job.model, reading)
        self._report(job, ended=True)

    def check_sibling(self) -> None:
        """Refuse to judge without the control that finds the budgets."""
        if (name := self.schedule.plan.sibling.name) not in self.store.edits:
            raise UserError(f"The control {name!r} finds the budgets of attacks, but its `make` returned no edit.")

    def verdict(self) -> Verdict:
        """The rule applied to the stored readings."""
        case, plan = self.schedule.case, self.schedule.plan
        readings = verify.at_common_budget(self.store.readings)
        summary = summarise(self.before, self.after, case, readings)
        found = verify.judge(
            readings, scorecard=grades(summary, readings), summary=summary, checks=plan.table, seed=case.seed
        )
        return replace(found, reasons=[*found.reasons, *second_sibling_reasons(self.store.readings)])

    def _change(self, name: str) -> Edit | Model:
        return self.after if name == "after" else self.store.edits[name]

    def _file(self, name: str) -> ChangeFile:
        change = self._change(name)
        if isinstance(change, Model):
            return ChangeFile(change.source, change.digest())
        return ChangeFile(str(self.store.file_of(name, change)), change.digest(), change.record)

    def _report(self, job: Job, *, ended: bool = False) -> Callable[[int, int], None]:
        """Say how far the job's check is; returns what takes steps within the job."""
        labels = {c.name: c.label for c in self.schedule.plan.controls}
        making = job.check == MAKING
        what = labels[job.model] if making else f"{job.check} on {job.model}"

        def step(done: int, total: int) -> None:
            if self.progress:
                self.progress(what, done, total)

        step(*((int(ended), 1) if making else self.schedule.parts(job)))
        return step
