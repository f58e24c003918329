"""Exact activation patching of chosen sites, the check on every attribution.

Zhang & Nanda 2024, "Towards Best Practices of Activation Patching", arXiv:2309.16042.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ..knowledge import Case, Fact
from ..model import Batch, Part, Site
from ..model.hooks import Hook, point, record, run
from .attribution import attribute
from .counterfactual import Pairs, log_odds, pairs

if TYPE_CHECKING:
    from ..model import Model

ROWS = 48


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


@torch.no_grad()
def patching(
    model: Model,
    case: Case,
    sites: Sequence[Site],
    *,
    facts: Sequence[Fact] | None = None,
    rows: int = ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """How far the answer's log-odds fall when one site is patched from the counterfactual run, `[fact, site]`.

    A site is patched at all positions that are no padding in either run.

    Cost: one row a site and fact, `rows` at a time, and one counterfactual run.
    """
    case = case.on(model)
    both = pairs(model, case, list(facts or case.forget.working))
    names = sorted({point(s.part, s.layer) for s in sites})
    other = record(model, both.corrupted, names).activations
    base = log_odds(record(model, both.clean, []).logits, both).cpu().numpy()
    cells = [(f, s) for s in range(len(sites)) for f in range(len(both.facts))]
    out = np.zeros((len(both.facts), len(sites)))
    for start in range(0, len(cells), rows):
        some = cells[start : start + rows]
        index = torch.tensor([f for f, _ in some], device=model.device)
        batch, part = (
            _rows(both.clean, index),
            Pairs(both.facts, _rows(both.clean, index), both.corrupted, both.foils[index]),
        )
        seen = both.clean.mask[index].bool() & both.corrupted.mask[index].bool()
        hooks = [(name, _patch(name, sites, some, other[name][index], seen)) for name in names]
        odds = log_odds(run(model, batch, hooks), part).cpu().numpy()
        for (f, s), value in zip(some, odds, strict=True):
            out[f, s] = base[f] - value
        if progress:
            progress(min(start + rows, len(cells)), len(cells))
    return out


def agreement(
    model: Model,
    case: Case,
    sites: Sequence[Site],
    *,
    n_facts: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Agreement:
    """Check attribution of some sites against patching them, on the first `n_facts` forget facts."""
    case = case.on(model)
    facts = list(case.forget.working)[:n_facts]
    parts: tuple[Part, ...] = tuple(dict.fromkeys(s.part for s in sites))
    scores, _ = attribute(model, pairs(model, case, facts), parts)
    attributed = np.array([scores[s.part][:, s.layer, s.index].mean() for s in sites])
    exact = patching(model, case, sites, facts=facts, progress=progress).mean(0)
    return Agreement(tuple(sites), attributed, exact, len(facts))


def _patch(name: str, sites: Sequence[Site], cells: list[tuple[int, int]], other: Tensor, seen: Tensor) -> Hook:
    """Each row gets its own site's counterfactual activation, where the site sits at this hook point."""
    here = [(row, sites[s].index) for row, (_, s) in enumerate(cells) if point(sites[s].part, sites[s].layer) == name]

    def hook(value: Tensor) -> Tensor:
        value = value.clone()
        for row, unit in here:
            at = seen[row]
            value[row, at, unit] = other[row, at, unit]
        return value

    return hook


def _rows(batch: Batch, index: Tensor) -> Batch:
    return Batch(batch.ids[index], batch.mask[index], batch.positions[index], batch.labels[index])
