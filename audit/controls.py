"""The table of control edits. An audit makes them and runs the checks of each row on them, for comparison.

A new control is one row. Auditor, cost estimate, store, report and command line read this table.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import JsonValue

from .. import ablate, verify
from .._util.errors import LokaError, UserError
from ..ablate import TrainingConfig
from ..ablate.training.batches import PASSAGE
from ..knowledge import Case
from ..locate import random_sites
from ..model import Edit, Model, Site, join, token_ids
from ..verify import Reading
from ..verify.asking import asked_rows
from ..verify.check import Check
from ..verify.judge.thresholds import EXPOSED
from ..verify.training import FORWARD_BACKWARD

LAYERS = 2
# Each configuration is tried if the one before hides too little; small models need longer training than SmolLM2.
FIRST = TrainingConfig("npo", steps=15, lr=3e-4, retain_rows=12, neutral_rows=2, bfloat16=True)
TRIES = (
    FIRST,
    replace(FIRST, steps=30, lr=1e-3),
    replace(FIRST, steps=60, lr=1e-3, push_weight=0.25),
    replace(FIRST, steps=60, lr=3e-3, push_weight=0.25),
)
MATCH = 0.05
HALVINGS = 4
Progress = Callable[[int, int], None]
Readings = Mapping[str, Mapping[str, Reading]]


@dataclass(frozen=True)
class Audited:
    """The audit that a control is made for: the original, the edited model and the case.

    `recall`: the share of the forget facts that the edited model answers with sealed prompts; 0 for a cost estimate,
    which does not know it.
    """

    before: Model
    after: Edit | Model
    case: Case
    recall: float = 0.0


def always(readings: Readings) -> bool:
    """For a control that every audit wants."""
    return True


@dataclass(frozen=True)
class Control:
    """One row of the table of controls.

    Attributes:
        name: the name of its edit in the store and of its readings.
        label: its name in tables and figures.
        make: makes the control edit, or returns `None` if the audited edit allows none.
        cost: the forward passes of one row that `make` takes, or `None` if it makes no edit.
        checks: the names of the checks that are run on the control.
        wanted: given all readings so far, by model and check, whether the control is made; always by default. It is
            asked again after every check.
        finds_budgets: whether every attack that trains is run on it before all other models, to find the attack's
            budget. Exactly one control of an audit sets this.
    """

    name: str
    label: str
    make: Callable[[Audited, Progress], Edit | None] = field(repr=False)
    cost: Callable[[Audited], float | None] = field(repr=False)
    checks: tuple[str, ...]
    finds_budgets: bool = False
    wanted: Callable[[Readings], bool] = field(default=always, repr=False)

    def meets(self, check: Check) -> bool:
        """Whether the check is run on this control."""
        return check.name in self.checks or (self.finds_budgets and check.trains)


def with_column(controls: Sequence[Control], readings: Readings) -> tuple[Control, ...]:
    """The controls that get a column in tables: one that is not always wanted only if it was measured."""
    return tuple(c for c in controls if c.wanted is always or c.name in readings)


def shallow_sibling(
    model: Model,
    case: Case,
    *,
    recall: float,
    objective: str = "npo",
    settings: Mapping[str, JsonValue] | None = None,
    progress: Progress | None = None,
) -> Edit:
    """The positive control: an edit of the last two layers that hides the facts as well as the audited edit does.

    It is trained like the audited edit and then weakened to the smallest strength at which the model answers at most
    0.05 more of the forget facts than `recall`. Everything before those two layers is unchanged, so the hidden facts
    are known to be there, and an attack that fails to expose this edit cannot support a *removed* verdict. It is
    weakened because training beyond silence would make it hide more than the edit that it is compared with. If even
    the hardest training hides too little, that edit is returned: its recall is the audit's `shallow_forget_after`.

    Args:
        recall: the share of the forget facts that the audited model answers with sealed prompts.
        objective, settings: those of the audited edit, so that the attack is tried on facts hidden in the same way;
            `npo` for a model from elsewhere. What `undial` hides is hard to bring back even from the last layers.

    Cost: 15 training steps, and up to 150 more if these hide too little; the sealed forget prompts five to eight times.
    """
    last = range(model.n_layers - LAYERS, model.n_layers)
    sites = [Site(layer, part) for layer in last for part in ("attn", "mlp")]

    def hides(edit: Edit) -> bool:
        with edit.applied(model):
            return float(np.mean(list(verify.recall_by_unit(model, case.forget.sealed).values()))) <= recall + MATCH

    edit = None
    for config in TRIES:
        training = replace(config, objective=objective, settings=settings or {})
        edit = ablate.tune(model, case, sites, training, progress=progress)
        if hides(edit):
            return weakest(model, edit, hides, HALVINGS)
    assert edit is not None
    return edit


def weakest(model: Model, edit: Edit, holds: Callable[[Edit], bool], halvings: int) -> Edit:
    """Bisect for the smallest strength at which `holds` is true; it must be true at full strength."""
    low, high = 0.0, 1.0
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(edit.scaled(model, middle)) else (middle, high)
    return edit.scaled(model, high)


def exposed(readings: Readings, control: str) -> float | None:
    """The r of a control after relearning, at the budget that the edited model faced; `None` while it has none."""
    found = verify.compare(verify.at_common_budget(readings), "relearn", model=control)
    return found.r if found else None


def hides(readings: Readings, model: str) -> bool:
    """Whether a model gives less than half of the answers that the original gives."""
    shown = [readings.get(name, {}).get("recall") for name in (model, "before")]
    values = [found.value for found in shown if found and found.value is not None]
    return len(values) == 2 and values[0] < EXPOSED * values[1]


def second_sibling_reasons(readings: Readings) -> list[str]:
    """What follows from the second sibling for a verdict; nothing if there is none."""
    first, second = exposed(readings, "shallow"), exposed(readings, "shallow_npo")
    if first is None or second is None:
        return []
    found = (
        f"{second:.2f} of a sibling that hides by npo, and {first:.2f} of the one that hides by the edit's objective"
    )
    if not hides(readings, "shallow_npo"):
        said = "but the sibling by npo still answers, so that it shows nothing about the attack"
    elif second >= EXPOSED:
        said = "the attack works, but not on what this objective hides"
    else:
        said = "the attack is too weak for this model; raise its cap"
    return [f"Relearning brings back r = {found}: {said}. That little comes back of the edit supports no removal."]


def _first_is_not_exposed(readings: Readings) -> bool:
    found = exposed(readings, "shallow") if hides(readings, "after") else None
    return found is not None and found < EXPOSED


def _make_second(audited: Audited, progress: Progress) -> Edit | None:
    """The shallow sibling by `npo`, if the first one was made by another objective."""
    config = _training_of(audited.after)
    if config is None or config.objective in (None, "npo"):
        return None
    return shallow_sibling(audited.before, audited.case, recall=audited.recall, progress=progress)


def _make_shallow(audited: Audited, progress: Progress) -> Edit:
    config = _training_of(audited.after) or FIRST
    return shallow_sibling(
        audited.before,
        audited.case,
        recall=audited.recall,
        objective=config.objective or "npo",
        settings={k: v for k, v in config.settings.items() if k != "layer"},  # the sibling has its own layer
        progress=progress,
    )


def _shallow_cost(audited: Audited) -> float:
    """The cost if the first training hides enough."""
    asked = (1 + HALVINGS) * asked_rows(audited.case.forget.sealed)
    return FIRST.steps * _training_step(audited.before, audited.case, FIRST) + asked


def _make_random(audited: Audited, progress: Progress) -> Edit | None:
    sites = _random_sites(audited)
    if not sites or not isinstance(audited.after, Edit):
        return None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* new answers are written")  # a control need not write
            return ablate.rerun_on(audited.before, audited.case, audited.after, sites, progress=progress)
    except UserError:
        raise
    except LokaError as error:
        warnings.warn(f"there is no control edit on random sites, because {error}", stacklevel=2)
        return None


def _random_cost(audited: Audited) -> float | None:
    if not _random_sites(audited):
        return None
    config = _training_of(audited.after)
    if config is None or not isinstance(audited.after, Edit):
        return 0.0
    plan = audited.after.record.arguments.get("plan")
    counts = plan.get("counts") if isinstance(plan, Mapping) else None
    rounds = len(counts) if isinstance(counts, Sequence) else 1
    return rounds * config.steps * _training_step(audited.before, audited.case, config)


def _random_sites(audited: Audited) -> list[Site]:
    """As many other sites as the audited edit has; empty if the edit has no sites, or if no others exist."""
    names = audited.after.record.sites if isinstance(audited.after, Edit) else None
    return random_sites(audited.before, [Site.parse(s) for s in names], seed=audited.case.seed) if names else []


def _training_of(after: Edit | Model) -> TrainingConfig | None:
    """How the audited edit was trained; `None` for an edit that was not trained and for a model from elsewhere."""
    config = after.record.config if isinstance(after, Edit) else {}
    return TrainingConfig.from_json(config) if "objective" in config else None


def _training_step(model: Model, case: Case, config: TrainingConfig) -> float:
    """The cost of one step of `tune`: three batches; passages count more than prompts, because they are longer.

    Simulated relearning adds half of the facts, and now and then full steps on the other half.
    """
    texts = [join(f.prompt, f.answer) for f in case.forget.working]
    passage = PASSAGE * len(texts) / sum(len(ids) for ids in token_ids(model, texts))
    rows = len(texts) + config.retain_rows + config.neutral_rows * passage
    if relearning := config.simulated_relearning:
        rows += len(texts) / 2 * (1 + relearning.steps / relearning.every)
    return FORWARD_BACKWARD * rows


CONTROLS: tuple[Control, ...] = (
    Control("random", "random sites", _make_random, _random_cost, ("recall", "collateral", "relearn")),
    Control("shallow", "shallow sibling", _make_shallow, _shallow_cost, ("recall",), finds_budgets=True),
    Control(
        "shallow_npo", "shallow sibling by npo", _make_second, lambda audited: None, ("recall", "relearn"),
        wanted=_first_is_not_exposed,
    ),
)  # fmt: skip
