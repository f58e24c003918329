"""Audit an edited model against its original, with the controls that need an edit."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from .. import ablate, verify
from .._util.errors import UserError
from .._util.malloc import release
from ..knowledge import Case
from ..locate import random_sites
from ..model import Edit, Model, Site, bare, is_adapter, load, read_adapter
from ..verify import Budget, Reading, Verdict
from ..verify.relearn import Group
from .controls import shallow_sibling
from .profiles import CAPS, PLANS, WAYS, Plan, Profile
from .store import Store
from .summary import graded, summarise

Progress = Callable[[str, int, int], None]
TWINS = (*CAPS, "logit_lens", "depth", "quantize", "direction_ablation", "soft_prompt")  # nothing without them
BOTH = ("direction_ablation", "depth")  # checks that look at original and edited model at once


def audit(
    before: Model,
    after: Edit | Model | str | Path,
    case: Case,
    *,
    profile: Profile = "quick",
    store: Store | None = None,
    progress: Progress | None = None,
    caps: Mapping[str, Budget] | None = None,
) -> Verdict:
    """Measure original, edited model and controls, and judge.

    Controls: the twins in every check; a shallow sibling (the same objective on the last two layers,
    which only hides the facts: every attack must expose it, and the attack's budget is found on it
    alone); and, where `after` is an edit of ours, the same method on as many random sites.

    Args:
        after: an edit of `before`, a model, or the path or hub id of one.
        profile: `quick` asks in many ways, probes and relearns. `standard` adds extraction, the lens, depth, rounded
            weights, the edit's direction, soft prompts and benign fine-tuning. `full` draws more samples, relearns with
            three learning rates on three partitions of the facts, and by two other means, LoRA and SGD.
        store: readings and control edits found there are not made again; new ones are left there.
        caps: the most that an attack may spend, by its name; others keep what SmolLM2 needs (`CAPS`). Within it, the
            steps that bring back most of the shallow sibling's answers are found, for each attack by itself.

    Raises:
        UserError: a model with another tokenizer or shape than `before`, or an unknown profile.
    """
    if profile not in get_args(Profile):
        raise UserError(f"{profile!r} is no profile; choose one of {', '.join(get_args(Profile))}.")
    auditor = _Auditor(
        before, resolve(before, after), case.on(before), store or Store(), progress, PLANS[profile],
        CAPS | dict(caps or {}),
    )  # fmt: skip
    auditor.measure()
    return auditor.verdict()


def controls(before: Model, after: Edit | Model, case: Case, store: Store, *, progress: Progress | None = None) -> None:
    """The control edits of `audit` alone, made and left in the store where it lacks them."""
    _Auditor(before, after, case.on(before), store, progress, PLANS["quick"], CAPS).controls()


@dataclasses.dataclass
class _Auditor:
    before: Model
    after: Edit | Model
    case: Case
    store: Store
    progress: Progress | None
    plan: Plan
    caps: Mapping[str, Budget]

    def measure(self) -> None:
        """Every reading that the store lacks, the attacks last."""
        self.controls()
        for name in ("before", "after"):
            self._look(name)
            self._look_deeper(name)
        self._take("shallow", "recall", lambda m: verify.recall(m, self.case))
        if "random" in self.store.edits:
            for check in (verify.recall, verify.collateral):
                self._take("random", check.__name__, lambda m, check=check: check(m, self.case))
        for attack in self.plan.attacks:
            self._attack(attack)

    def verdict(self) -> Verdict:
        """The rule applied to what the store holds."""
        readings = verify.at_common_budget(self.store.readings)
        numbers = summarise(self.before, self.after, self.case, readings)
        return verify.judge(readings, scorecard=graded(numbers, readings), summary=numbers, seed=self.case.seed)

    def _look(self, name: str) -> None:
        """The checks that only ask."""
        forms = list(self.store.readings.get("before", {}).get("paraphrase", _NONE).details.get("forms", {})) or None
        memory: list[Any] = []

        def paraphrase(m: Model) -> Reading:
            return verify.paraphrase(m, self.case, forms=forms if name != "before" else None)

        def collateral(m: Model) -> Reading:
            return verify.collateral(m, self.case, before=memory or None)

        if name != "before" and "collateral" not in self.store.readings.get(name, {}):
            memory = verify.neutral_outputs(self.before, self.case)
        self._take(name, "recall", lambda m: verify.recall(m, self.case))
        self._take(name, "paraphrase", paraphrase)
        self._take(name, "probe", lambda m: verify.probe(m, self.case))
        self._take(name, "collateral", collateral)
        self._take(name, "membership", lambda m: verify.membership(m, self.case))

    def _look_deeper(self, name: str) -> None:
        """What the larger profiles do beside, without any budget to be found."""
        case, plan, original = self.case, self.plan, self.before
        checks: dict[str, Callable[[Model], Reading]] = {
            "extraction": lambda m: verify.extraction(m, case, draws=plan.draws),
            "logit_lens": lambda m: verify.logit_lens(m, case),
            "depth": lambda m: verify.depth(m, case, original=original),
            "quantize": lambda m: verify.quantize(m, case),
            "direction_ablation": lambda m: verify.direction_ablation(m, case, original=original, layers=plan.layers),
            "soft_prompt": lambda m: verify.soft_prompt(m, case, tokens=plan.soft_tokens),
        }
        for check in plan.asking:
            if check in checks:
                self._take(name, check, checks[check])

    def controls(self) -> None:
        """Control edits that the store lacks: a sibling that hides as much, and the same edit on random sites."""
        self._take("after", "recall", lambda m: verify.recall(m, self.case))
        if "shallow" not in self.store.edits:
            self._make_shallow()
        if isinstance(self.after, Edit) and self.after.record.sites and "random" not in self.store.edits:
            self._make_random(self.after)

    def _make_shallow(self) -> None:
        made = self.after.record.config if isinstance(self.after, Edit) else {}
        edit = shallow_sibling(
            self.before,
            self.case,
            shown=self.store.readings["after"]["recall"].value or 0.0,
            objective=made.get("objective") or "npo",
            settings={k: v for k, v in made.get("settings", {}).items() if k != "layer"},  # the sibling has its own
            progress=self._step("shallow sibling"),
        )
        self.store.keep_edit("shallow", edit)

    def _make_random(self, edit: Edit) -> None:
        """By the same method; none where there are no other sites."""
        own = [Site.parse(s) for s in edit.record.sites or ()]
        sites = random_sites(self.before, own, seed=self.case.seed)
        if sites:
            release()
            step = self._step("random sites")
            self.store.keep_edit("random", ablate.rerun_on(self.before, self.case, edit, sites, progress=step))

    def _attack(self, name: str) -> None:
        """The attack's budget is found on the shallow sibling alone, then everyone meets it at that budget."""
        cap = self.caps[name]
        if name == "relearn":
            cap = dataclasses.replace(cap, rates=tuple(cap.lr * r for r in self.plan.rates))
        shallow = self._train("shallow", name, cap)
        if shallow.value is None:
            return
        budget = cap.at(budget_steps(shallow))
        self._train("before", name, budget)
        self._train("after", name, budget, groups=("forget", "twins"))
        if name == "relearn" and "random" in self.store.edits:
            self._train("random", name, budget)

    def _train(self, model: str, name: str, budget: Budget, *, groups: tuple[Group, ...] = ("forget",)) -> Reading:
        if name == "benign":
            step = self._step(f"benign fine-tuning, {model}")
            return self._take(
                model, name, lambda m: verify.benign(m, self.case, budget=budget, groups=groups, progress=step)
            )
        way = WAYS[name]
        step = self._step(f"relearning{'' if way == 'adamw' else f' by {way}'}, {model}")
        return self._take(
            model,
            name,
            lambda m: verify.relearn(
                m, self.case, budget=budget, groups=groups, partitions=self.plan.partitions, by=way, progress=step
            ),
        )

    def _take(self, model: str, name: str, check: Callable[[Model], Reading]) -> Reading:
        held = self.store.readings.get(model, {})
        if name not in held:
            if self.progress:
                self.progress(f"{name} on {model}", 0, 1)
            release()
            start = time.perf_counter()
            if name in TWINS and not self.case.twins.sealed:
                found = verify.refused(
                    name, "The case has no twins, and without them nothing tells a leak from chance."
                )
            else:
                with self._subject(model, copy=name in BOTH) as subject:
                    found = check(subject)
            self.store.keep(model, found, seconds=time.perf_counter() - start)
        return self.store.readings[model][name]

    @contextmanager
    def _subject(self, name: str, *, copy: bool = False) -> Iterator[Model]:
        """The model of that name, for as long as the context lasts; with `copy`, an edit leaves the original alone."""
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

    def _step(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(what, done, total) if self.progress else None


def budget_steps(shallow: Reading) -> int:
    """The steps within the cap after which the shallow sibling gives back most.

    Not the fewest that expose it: an edit that holds a little longer than the sibling would pass for a removal. Nor all
    of them: training on other facts wears down what it has brought back.
    """
    curve = {int(step): back for step, back in shallow.details["curve"]["forget"].items()}
    return max(sorted(curve), key=curve.__getitem__)


_NONE = Reading("none", None, None, 0, {}, "")


def resolve(before: Model, after: Edit | Model | str | Path) -> Edit | Model:
    """What `after` stands for, checked to be comparable with `before`.

    A file is an edit, a folder with `adapter_config.json` a low-rank adapter, anything else a model.

    Raises:
        UserError: a model with another tokenizer or shape, or an edit or adapter that was made for another model.
    """
    if isinstance(after, str | Path):
        if str(after).endswith(".safetensors"):
            after = Edit.load(after)
        else:
            after = read_adapter(before, after) if is_adapter(after) else load(str(after), device=str(before.device))
    if isinstance(after, Edit):
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
