"""Whether a circuit needs all its sites: each is left out in turn, and random sites from outside give a null.

Wang et al. 2023, "Interpretability in the Wild", arXiv:2211.00593 (minimality); with a null distribution as in
Shi et al. 2024, "Hypothesis Testing the Circuit Hypothesis in LLMs", arXiv:2410.13032.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Model, Site
from .contrast import Progress
from .faithfulness import circuit_faithfulness
from .localization import Localization
from .ranking import BY_FORGET_SCORE, Ranking, site_mask


@dataclass(frozen=True)
class Minimality:
    """What single sites contribute to a circuit's faithfulness f, the mean over facts.

    Attributes:
        sites: the tested sites of the circuit.
        losses: how far f falls without each tested site, `[site]`.
        null: how far f falls when a random site that was added to the circuit is removed again, `[site]`.
        whole: f of the circuit.
        n_sites: number of sites in the circuit.
    """

    sites: tuple[Site, ...]
    losses: np.ndarray
    null: np.ndarray
    whole: float
    n_sites: int

    @property
    def threshold(self) -> float:
        """The 95th percentile of the null's size."""
        return float(np.quantile(np.abs(self.null), 0.95))

    @property
    def share_needed(self) -> float:
        """The share of tested sites whose loss exceeds the threshold; 1 for a minimal circuit."""
        return float((self.losses > self.threshold).mean())

    def __str__(self) -> str:
        return (
            f"{self.n_sites:,} sites, faithfulness {self.whole:.2f}: the circuit needs {self.share_needed:.0%} of "
            f"{len(self.sites)} tested sites (f falls by more than {self.threshold:.4f} without one)"
        )


@accepts_spec
@torch.no_grad()
def minimality(
    model: Model,
    case: Case,
    found: Localization,
    *,
    ranking: Ranking = BY_FORGET_SCORE,
    share: float = 0.05,
    trials: int = 40,
    rows: int = 16,
    progress: Progress | None = None,
) -> Minimality:
    """Take the best sites as a circuit, leave single sites out, and compare with random sites from outside.

    f is measured on the working forget facts; pass `case.subset(n)` for fewer.

    Args:
        found: the localization that ranks the sites.
        ranking: the part, and the column to rank by.
        share: the circuit's share of the part's sites.
        trials: how many sites to test inside the circuit, evenly down its ranking, and how many outside.
        rows: facts in one batch.
        progress: called with the number of facts done and the number of all facts.

    Raises:
        UserError: a part without scores, a share that leaves no site inside or outside, or no trials.

    Cost: three forward passes over the facts, and two for each trial.
    """
    order = ranking.sites(found)
    n = round(share * len(order))
    if not 0 < n < len(order) or trials < 1:
        raise UserError(
            f"share={share} of {len(order)} {ranking.part} sites is {n}, with trials={trials}; give a share that puts "
            "at least one site inside the circuit and one outside, and at least one trial."
        )
    inside, outside = order[:n], order[n:]
    tested = [inside[i] for i in np.unique(np.linspace(0, n - 1, min(trials, n)).round().astype(int))]
    drawn = np.random.default_rng(case.seed).choice(len(outside), size=min(trials, len(outside)), replace=False)
    circuits = [inside, *([s for s in inside if s != site] for site in tested), *([*inside, outside[i]] for i in drawn)]
    masks = [site_mask(model, circuit, ranking.part) for circuit in circuits]
    facts = list(case.forget.working)
    f = circuit_faithfulness(model, case, facts, ranking.part, masks, rows=rows, progress=progress).mean(1)
    without, extended = f[1 : 1 + len(tested)], f[1 + len(tested) :]
    return Minimality(tuple(tested), f[0] - without, extended - f[0], float(f[0]), n)
