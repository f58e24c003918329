"""Exact effects of single sites. Attribution estimates these.

Zhang & Nanda 2024, "Towards Best Practices of Activation Patching", arXiv:2309.16042.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec
from ..model import INDEXED, Model, Part, Runner, Site, in_turn, logits
from ..model.run.interventions import Intervention, Kind
from ..model.run.single_precision import single_precision
from ..model.run.sweep import Positions, SweepBudget, Swept, site_order, sweep_cells
from ..model.run.sweep import sweep as run_sweep
from .contrast import Progress, comparison_facts, contrast
from .counterfactual import Pairs, log_odds, pairs
from .localization import Localization
from .record import LocalizationRecord

DEFAULT_BUDGET = SweepBudget()


@accepts_spec
def patching(
    model: Model,
    case: Case,
    sites: Sequence[Site] | Part = "head",
    *,
    facts: Sequence[Item] | None = None,
    kind: Kind = "patch",
    positions: Positions | None = None,
    budget: SweepBudget = DEFAULT_BUDGET,
    progress: Progress | None = None,
) -> np.ndarray:
    """Measure how far the answer's log-odds fall when one site changes: `[fact, site]` or `[fact, site, position]`.

    Args:
        sites: the sites, or a part for all its sites in the order of `model.sites(part)`.
        facts: the working forget facts by default.
        kind: `patch` puts in the activation of the counterfactual run, at every position that is not padding in
            either run. `zero`, `mean`, `resample` (over the counterfactual prompts) and `noise` need no pair.
        positions: change one position at a time, these or `"all"`, counted from the end of the prompt (-1 is its
            last token).
        budget: batch size, memory and the file to resume from.
        progress: called with the number of cells done and the number of all cells. A cell is one site, at one
            position, on one fact.

    Raises:
        UserError: too little memory for one row, positions of pairs that differ in length, or an answer among its own
            foils.

    Cost: for each site and fact, the blocks after the site, from the first changed token on.

    Example:
        effects = loka.locate.patching(model, loka.case("capitals"), "head")
    """
    both = pairs(model, case, list(facts or case.forget.working))
    chosen = model.sites(sites) if isinstance(sites, str) else list(sites)
    found = sweep_pairs(
        model, both, chosen, kind=kind, positions=positions, seed=case.seed, budget=budget, progress=progress
    )
    return found.falls


@accepts_spec
def sweep(
    model: Model,
    case: Case,
    *,
    part: Part = "head",
    kind: Kind = "patch",
    budget: SweepBudget = DEFAULT_BUDGET,
    progress: Progress | None = None,
    runner: Runner = in_turn,
) -> Localization:
    """Score every site of a part exactly.

    A site's score on a fact is how far the log-odds of the answer fall when the site changes, as a share of the fall
    under the whole counterfactual prompt. The mean over working retain facts of the same relation is subtracted.

    Args:
        part: a part with units.
        kind, budget, progress: as for `patching`.
        runner: who does the jobs, one for each fact; see `loka.audit`.

    Raises:
        UserError: a part without units (`attn`, `mlp`, `resid`); use `patching` for these. Also as `patching`.

    Cost: that of `patching`, over forget and retain facts.

    Example:
        found = loka.locate.sweep(model, loka.case("capitals"), part="head")
    """
    if part not in INDEXED:
        raise UserError(
            f"sweep scores parts with units ({', '.join(INDEXED)}), not {part!r}; "
            f"loka.locate.patching(model, case, {part!r}) gives its effects."
        )
    facts = [*case.forget.working, *comparison_facts(case)]
    both = pairs(model, case, facts)
    if runner is in_turn:
        found = sweep_pairs(model, both, model.sites(part), kind=kind, seed=case.seed, budget=budget, progress=progress)
    else:
        work = SweepWork(model, case, both, part, kind, budget, progress)
        runner(work)
        found = work.found()
    return contrast(
        {part: found.falls.reshape(len(facts), model.n_layers, -1)},
        found.base - _counterfactual_odds(model, both),
        n_forget=len(case.forget.working),
        record=LocalizationRecord.of("sweep", model, case, {"kind": kind}),
    )


def sweep_pairs(
    model: Model,
    both: Pairs,
    sites: Sequence[Site],
    *,
    kind: Kind = "patch",
    positions: Positions | None = None,
    prompts: Sequence[int] | None = None,
    seed: int = 0,
    budget: SweepBudget = DEFAULT_BUDGET,
    progress: Progress | None = None,
) -> Swept:
    """Measure the log-odds of each pair's answer with each site changed; arguments as for `patching`.

    `prompts`: the pairs to sweep, by default all; the others stay NaN.
    """

    def metric(row: int, scores: Tensor) -> Tensor:
        return log_odds(scores, both.repeated(row, len(scores)))

    intervention = Intervention(kind, both.corrupted, seed)
    return run_sweep(
        model, both.clean, sites, intervention, metric=metric, positions=positions, prompts=prompts, budget=budget,
        progress=progress,
    )  # fmt: skip


class SweepWork:
    """A sweep over all sites of a part as jobs, one for each fact. The checkpoint is that of a sweep in one process."""

    def __init__(
        self,
        model: Model,
        case: Case,
        both: Pairs,
        part: Part,
        kind: Kind,
        budget: SweepBudget,
        progress: Progress | None,
    ) -> None:
        self.model, self.case, self.both = model, case, both
        self.part: Part = part
        self.kind: Kind = kind
        self.sites, self.progress = model.sites(part), progress
        intervention = Intervention(kind, both.corrupted, case.seed)
        self.cells = sweep_cells(model, both.clean, self.sites, intervention, budget)
        self.budget = SweepBudget(self.cells.settings["rows"], self.cells.settings["memory"])

    def ready(self) -> list[int]:
        return [row for row in range(len(self.cells.done)) if not self.cells.done[row].all()]

    def run(self, job: int) -> tuple[float, np.ndarray]:
        return self.task(job).run(self.model)

    def task(self, job: int) -> SweepTask:
        return SweepTask(self.case, self.both.facts, self.part, self.kind, job, self.budget)

    def done(self, job: int, result: tuple[float, np.ndarray], seconds: float) -> None:
        base, values = result
        self.cells.put_base(job, base)
        self.cells.put(job, slice(None), values[site_order(self.sites)])
        if self.progress:
            self.progress(int(self.cells.done.sum()), self.cells.done.size)

    def found(self) -> Swept:
        """What the whole sweep found."""
        return Swept(self.cells.base, self.cells.values[:, np.argsort(site_order(self.sites))])


@dataclass(frozen=True)
class SweepTask:
    """All sites of a part changed in the prompt of one fact, the `row`th of all facts of the sweep."""

    case: Case
    facts: tuple[Item, ...]
    part: Part
    kind: Kind
    row: int
    budget: SweepBudget

    def run(self, model: Model) -> tuple[float, np.ndarray]:
        """The answer's log-odds unchanged, and `[site]` with each site changed."""
        key = (self.case.digest, tuple((fact.relation, fact.prompt, fact.answer) for fact in self.facts))
        both = model.cache.get("pairs", key, lambda: pairs(model, self.case, list(self.facts)))
        found = sweep_pairs(
            model, both, model.sites(self.part), kind=self.kind, prompts=[self.row], seed=self.case.seed,
            budget=self.budget,
        )  # fmt: skip
        return float(found.base[self.row]), found.values[self.row]


@torch.no_grad()
def _counterfactual_odds(model: Model, both: Pairs) -> np.ndarray:
    """Log-odds of each answer after the counterfactual prompt, `[fact]`."""
    rows = [both.repeated(row, 1) for row in range(len(both.facts))]
    with single_precision(model):
        return np.array([float(log_odds(logits(model, one.corrupted), one)) for one in rows])
