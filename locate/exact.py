"""Exact effects of single sites: what attribution estimates, and the check on it.

Zhang & Nanda 2024, "Towards Best Practices of Activation Patching", arXiv:2309.16042.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Fact
from ..model import INDEXED, Part, Site, logits
from ..model.run.interventions import Intervention, Kind
from ..model.run.sweep import Positions, SweepBudget, Swept
from ..model.run.sweep import sweep as run_sweep
from .attribution import attribute
from .counterfactual import Pairs, log_odds, pairs
from .facts import Scores
from .integrated_gradients import integrate
from .localization import Localization, contrast

if TYPE_CHECKING:
    from ..model import Model

Progress = Callable[[int, int], None]
Estimate = Callable[..., tuple[Scores, np.ndarray]]
ESTIMATES: dict[str, Estimate] = {"attribution": attribute, "integrated_gradients": integrate}


@dataclass(frozen=True)
class Agreement:
    """Attributed against exact effects of the same sites on the same facts, `[site]` each, in log-odds.

    `rank_correlation` is Spearman's over the sites, of the mean over facts.
    """

    sites: tuple[Site, ...]
    attributed: np.ndarray
    exact: np.ndarray
    n_facts: int

    @property
    def rank_correlation(self) -> float:
        return float(np.corrcoef(stats.rankdata(self.attributed), stats.rankdata(self.exact))[0, 1])

    def to_json(self) -> dict[str, object]:
        return {
            "rank_correlation": self.rank_correlation,
            "n_sites": len(self.sites),
            "n_pairs": self.n_facts,
            "sites": [str(s) for s in self.sites],
            "points": [[float(a), float(b)] for a, b in zip(self.attributed, self.exact, strict=True)],
        }


def patching(
    model: Model,
    case: Case,
    sites: Sequence[Site] | None = None,
    *,
    part: Part = "head",
    facts: Sequence[Fact] | None = None,
    kind: Kind = "patch",
    positions: Positions | None = None,
    rows: int | None = None,
    memory: float | None = None,
    keep: str | Path | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """How far the answer's log-odds fall when one site is changed, `[fact, site]`, or `[fact, site, position]`.

    Args:
        sites: which; without them all of `part`, in the order of `model.sites(part)`.
        facts: by default the working forget facts.
        kind: `patch` puts in the activation of the counterfactual run, at all positions that are no padding in
            either run; `zero`, `mean` and `resample` (over the counterfactual prompts) and `noise` need no pair.
        positions: one position at a time, these or `"all"`, counted from the end of the prompt (-1 its last token).
        rows: sites in one batch at most; by default what is fastest.
        memory: bytes that a batch may take; by default half of what is free.
        keep: a file to which finished batches are written, and from which an interrupted call goes on.
        progress: called with rows done and rows in all.

    Raises:
        UserError: as `loka.model.sweep` does: half precision, too little memory for one row, positions asked of
            pairs that differ in their number of tokens; an answer among its own foils.

    Cost: for a site and fact, the blocks behind the site from the first changed token on.
    """
    case = case.on(model)
    both = pairs(model, case, list(facts or case.forget.working))
    chosen = model.sites(part) if sites is None else list(sites)
    options = {"kind": kind, "positions": positions, "budget": SweepBudget(rows, memory, keep)}
    return swept(model, both, chosen, seed=case.seed, progress=progress, **options).falls


def sweep(
    model: Model,
    case: Case,
    *,
    part: Part = "head",
    kind: Kind = "patch",
    rows: int | None = None,
    memory: float | None = None,
    keep: str | Path | None = None,
    progress: Progress | None = None,
) -> Localization:
    """Score every site of a part exactly: what `attribution` estimates, one row a site and fact.

    The score of a site on a fact is how far the log-odds of its answer fall when the site is changed, in shares of
    the fall of the whole counterfactual prompt; the mean over working retain facts of the same relation is taken
    off. Arguments, errors and cost are those of `patching`, over forget and retain facts.

    Raises:
        UserError: a part without units (`attn`, `mlp`, `resid`), for which `patching` gives effects.

    Example:
        found = loka.locate.sweep(model, loka.case("capitals"), part="head")
    """
    if part not in INDEXED:
        raise UserError(
            f"sweep scores parts with units ({', '.join(INDEXED)}), not {part!r}; "
            f"loka.locate.patching(model, case, part={part!r}) gives its effects."
        )
    case = case.on(model)
    relations = set(case.forgotten_relations)
    retain = [f for f in case.retain.working if f.relation in relations] or list(case.retain.working)
    facts = [*case.forget.working, *retain]
    both = pairs(model, case, facts)
    options = {"kind": kind, "budget": SweepBudget(rows, memory, keep)}
    found = swept(model, both, model.sites(part), seed=case.seed, progress=progress, **options)
    return contrast(
        {part: found.falls.reshape(len(facts), model.n_layers, -1)},
        found.base - _counterfactual_odds(model, both),
        n_forget=len(case.forget.working),
        subjects=[f.subject for f in facts],
        seed=case.seed,
        about={"method": f"sweep ({kind})", "model": model.name, "case": case.name, "digest": model.digest()},
    )


def swept(
    model: Model, both: Pairs, sites: Sequence[Site], *, kind: Kind = "patch", seed: int = 0, **options: Any
) -> Swept:
    """The log-odds of each pair's answer with each site changed; `options` as in `loka.model.sweep`."""

    def metric(row: int, some: Tensor) -> Tensor:
        return log_odds(some, both.repeated(row, len(some)))

    put = Intervention(kind, both.corrupted, seed)
    return run_sweep(model, both.clean, sites, put, metric=metric, **options)


@torch.no_grad()
def _counterfactual_odds(model: Model, both: Pairs) -> np.ndarray:
    """Log-odds of each answer behind the counterfactual prompt, `[fact]`."""
    rows = [both.repeated(row, 1) for row in range(len(both.facts))]
    return np.array([float(log_odds(logits(model, one.corrupted), one)) for one in rows])


def agreement(
    model: Model,
    case: Case,
    sites: Sequence[Site],
    *,
    method: str = "attribution",
    n_facts: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Agreement:
    """Check attribution of some sites against patching them, on the first `n_facts` forget facts.

    Args:
        method: one of `ESTIMATES`, whose scores estimate the effect of patching.

    Raises:
        UserError: another method, fewer than two sites, or sites that the model does not have or record.
    """
    if method not in ESTIMATES:
        raise UserError(f"{method!r} does not estimate the effect of patching; check one of {', '.join(ESTIMATES)}.")
    if len(set(sites)) < 2:
        raise UserError("agreement compares at least two sites; take them from a localization's `top`.")
    for site in sites:
        model.check_site(site)
    case = case.on(model)
    facts = list(case.forget.working)[:n_facts]
    parts: tuple[Part, ...] = tuple(dict.fromkeys(s.part for s in sites))
    scores, _ = ESTIMATES[method](model, pairs(model, case, facts), parts)
    attributed = np.array([scores[s.part][:, s.layer, s.index or 0].mean() for s in sites])
    exact = patching(model, case, sites, facts=facts, progress=progress).mean(0)
    return Agreement(tuple(sites), attributed, exact, len(facts))
