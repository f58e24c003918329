"""Audit an edited model against its original, with the controls that need an edit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import ablate, verify
from .._util.errors import NotFiniteError, UserError
from .._util.malloc import release
from ..knowledge import Case, CaseSpec, resolved
from ..model import Edit, Model, bare, check_trainable, is_adapter, load, read_adapter
from ..verify import Budget, Reading, Verdict
from ..verify.check import Check, Profile, Setting
from .controls import Audited, Control
from .edited import edited_matrices
from .plan import Plan, Step, check_names
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
) -> Verdict:
    """Measure the original, the edited model and the controls, and give a verdict.

    Controls: the twins in every check; a shallow sibling (the same objective on the last two layers, which only hides
    the facts: every attack must expose it, and the attack's budget is found on it alone); and, if `after` is an edit of
    LOKA's, the same method on as many random sites.

    Args:
        after: an edit of `before`, a model, or the path or hub id of one.
        profile: `quick` asks in many ways, probes and relearns. `standard` adds extraction, the logit lens, depth,
            similarity, quantized weights, the ablated direction of the edit, components and rows of the edited matrices
            taken out, beginnings of answers, soft prompts and benign fine-tuning. `full` draws more samples, and
            relearns with three learning rates on three partitions of the facts, with LoRA, with SGD, and with other
            data beside the facts.
        store: readings and control edits found there are not made again; new ones are added.
        checks, controls: tables that take the place of `loka.verify.CHECKS` and `loka.audit.controls.CONTROLS`. The
            caps of `CHECKS` fit SmolLM2; `checks=loka.verify.capped({"relearn": Budget(8, 1e-3)})` sets others. Within
            its cap, each attack uses the number of steps that brings back most of the shallow sibling's answers.

    Raises:
        UserError: a model in float16, a model with another tokenizer or shape than `before`, or an unknown profile,
            check or control, also one that the store has readings of.
    """
    plan = Plan.of(profile, checks=checks, controls=controls)
    if any(check.trains for check in plan.checks):
        check_trainable(before)
    store = store or Store()
    check_names(store.readings, plan.table, plan.controls, "the store")
    after, known = resolve(before, after), resolved(before, case)
    auditor = _Auditor(before, after, known, plan.on(known), store, progress)
    auditor.make_controls()
    auditor.measure()
    return auditor.verdict()


def controls(before: Model, after: Edit | Model, case: Case, store: Store, *, progress: Progress | None = None) -> None:
    """Make the control edits of `audit` alone, those that the store lacks."""
    _Auditor(before, after, resolved(before, case), Plan.of("quick"), store, progress).make_controls()


@dataclass
class _Auditor:
    before: Model
    after: Edit | Model
    case: Case
    plan: Plan
    store: Store
    progress: Progress | None

    def make_controls(self) -> None:
        """Make every control edit that the store lacks and that the audited edit allows."""
        recall = next((c for c in self.plan.checks if c.name == "recall"), None)
        if recall is None:
            raise UserError("The table of checks lacks 'recall', which every audit needs; add it.")
        answered = self._take(Step("after", recall), None).value or 0.0
        audited = Audited(self.before, self.after, self.case, answered)
        for control in self.plan.controls:
            if control.name not in self.store.edits:
                release()
                edit = control.make(audited, self._progress(control.label))
                if edit is not None:
                    self.store.keep_edit(control.name, edit)
        if self.plan.sibling.name not in self.store.edits:
            raise UserError(
                f"The control {self.plan.sibling.name!r} finds the budgets of attacks, but its `make` returned no edit."
            )

    def measure(self) -> None:
        """Make every reading that the store lacks. An attack that cannot be run on the sibling is left out."""
        for step in self.plan.steps(self.store.edits):
            budget = self._budget(step)
            if not step.check.trains or budget or step.check.obstacle(self.case):
                self._take(step, budget)

    def verdict(self) -> Verdict:
        """The rule applied to the stored readings."""
        readings = verify.at_common_budget(self.store.readings)
        summary = summarise(self.before, self.after, self.case, readings)
        return verify.judge(
            readings, scorecard=grades(summary, readings), summary=summary, checks=self.plan.table, seed=self.case.seed
        )

    def _budget(self, step: Step) -> Budget | None:
        """The cap on the sibling; on all other models, the budget found on the sibling. `None` if there is none."""
        cap = step.check.cap
        if cap is None or step.model == self.plan.sibling.name:
            return cap
        shallow = self.store.readings[self.plan.sibling.name][step.check.name]
        return None if shallow.value is None else cap.at(budget_steps(shallow))

    def _take(self, step: Step, budget: Budget | None) -> Reading:
        """The reading of a step, from the store if it is there."""
        name = step.check.name
        if name not in self.store.readings.get(step.model, {}):
            if self.progress:
                self.progress(f"{name} on {step.model}", 0, 1)
            release()
            start = time.perf_counter()
            obstacle = step.check.obstacle(self.case)
            found = self._run(step, budget) if obstacle is None else verify.refusal(name, obstacle)
            self.store.keep(step.model, found, seconds=time.perf_counter() - start)
        return self.store.readings[step.model][name]

    def _run(self, step: Step, budget: Budget | None) -> Reading:
        setting = self._setting(step, budget)
        with self._model(step.model, copy="original" in step.check.needs) as model:
            try:
                return step.check.run(model, self.case, setting)
            except NotFiniteError as error:
                return verify.refusal(step.check.name, str(error), not_finite=("what it reads off the model",))

    def _setting(self, step: Step, budget: Budget | None) -> Setting:
        """The step's setting, with what the check needs from the original, computed before any edit is applied."""
        needs = step.check.needs if step.model != "before" else frozenset()
        outputs = "neutral_outputs" in needs and step.model == "after"
        return replace(
            self.plan.setting(step, budget),
            original=self.before if "original" in needs else None,
            original_reading=self.store.readings["before"][step.check.name] if "original_reading" in needs else None,
            neutral_outputs=verify.neutral_outputs(self.before, self.case) if outputs else None,
            edited=self._edited if "edited" in step.check.needs else (),
            progress=self._progress(f"{step.check.name} on {step.model}"),
        )

    @cached_property
    def _edited(self) -> tuple[str, ...]:
        return edited_matrices(self.before, self.after)

    @contextmanager
    def _model(self, name: str, *, copy: bool) -> Iterator[Model]:
        """The model of that name while the context lasts. With `copy`, an edit leaves the original untouched."""
        if name == "before":
            yield self.before
            return
        change = self.after if name == "after" else self.store.edits[name]
        if isinstance(change, Model):
            yield change
            return
        with change.applied(self.before) as edited:
            if not copy:
                yield edited
                return
            edited = bare(edited)
        yield edited

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(what, done, total) if self.progress else None


def budget_steps(shallow: Reading) -> int:
    """The number of steps within the cap after which the shallow sibling gives back most.

    The fewest steps that expose it would be too few: an edit that resists a little longer than the sibling would pass
    for a removal. The whole cap may be too many: training on other facts also wears down what it brought back.
    """
    curve: Any = shallow.details["curve"]
    means = {int(step): back for step, back in curve["forget"].items() if back is not None and step != "0"}
    return max(sorted(means), key=means.__getitem__)


def resolve(before: Model, after: Edit | Model | str | Path) -> Edit | Model:
    """The edit or model that `after` names, checked to be comparable with `before`.

    A file is an edit, a folder with `adapter_config.json` a low-rank adapter, anything else a model.

    Raises:
        UserError: a model with another tokenizer or shape, an edit or adapter that was made for another model, or an
            edit whose control cannot be made from its record.
    """
    if isinstance(after, str | Path):
        if str(after).endswith(".safetensors"):
            after = Edit.load(after)
        else:
            after = read_adapter(before, after) if is_adapter(after) else load(str(after), device=str(before.device))
    if isinstance(after, Edit):
        if after.record.sites:
            ablate.check_rerun(after)
        with after.applied(before):
            return after
    if after.tokenizer.get_vocab() != before.tokenizer.get_vocab():
        raise UserError(
            f"{after.name} and {before.name} have different tokenizers; audit a model made from the original."
        )
    shapes = {n: p.shape for n, p in before.parameters.items()}
    if shapes != {n: p.shape for n, p in after.parameters.items()}:
        raise UserError(f"{after.name} and {before.name} have different shapes; audit a model made from the original.")
    return after
