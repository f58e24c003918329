"""Whether a circuit's sites are all needed: each is left out by itself, beside a null of sites from outside.

Wang et al. 2023, "Interpretability in the Wild", arXiv:2211.00593 (minimality); with a null distribution as in
Shi et al. 2024, "Hypothesis Testing the Circuit Hypothesis in LLMs", arXiv:2410.13032.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .._util.errors import UserError
from ..knowledge import Case, Fact
from ..model import Model, Part, Site, chunks
from .counterfactual import pairs
from .faithfulness import carried, mask
from .localization import Localization


@dataclass(frozen=True)
class Minimality:
    """What single sites are worth to a circuit's faithfulness f.

    `sites`: those that were tried; `losses` `[site]`: by how much f falls without each; `null` `[site]`: by how
    much it falls when a random site that was added to the circuit is taken away again. f is the mean over
    facts; `whole` that of the circuit, of `n_sites` sites.
    """

    sites: tuple[Site, ...]
    losses: np.ndarray
    null: np.ndarray
    whole: float
    n_sites: int

    @property
    def threshold(self) -> float:
        """The size that one in twenty of the null exceeds."""
        return float(np.quantile(np.abs(self.null), 0.95))

    @property
    def needed(self) -> float:
        """Share of the tried sites whose loss is larger than the threshold; a minimal circuit has 1."""
        return float((self.losses > self.threshold).mean())

    def __str__(self) -> str:
        return (
            f"{self.n_sites:,} sites, faithfulness {self.whole:.2f}: {self.needed:.0%} of {len(self.sites)} tried are "
            f"needed (f falls by more than {self.threshold:.4f} without them)"
        )


@torch.no_grad()
def minimality(
    model: Model,
    case: Case,
    found: Localization,
    *,
    share: float = 0.05,
    part: Part = "neuron",
    by: str = "forget",
    tried: int = 40,
    facts: Sequence[Fact] | None = None,
    rows: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Minimality:
    """Take the best sites as a circuit, leave single ones out, and compare with random ones from outside.

    Args:
        share: of the part's sites that are the circuit.
        by: the column that orders the sites.
        tried: how many of the circuit's sites, evenly down its order, and how many from outside.
        facts: working forget facts by default.

    Raises:
        UserError: a part that was not scored, a share that leaves no site inside or outside, or none to try.

    Cost: three forward passes over the facts, and two for each site tried.
    """
    order = found.top(found.grid(part).size, part=part, by=by)
    n = round(share * len(order))
    if not 0 < n < len(order) or tried < 1:
        raise UserError(
            f"share={share} of {len(order)} {part} sites is {n}, and tried={tried}: a circuit has at least one site, "
            "leaves one out, and at least one is tried."
        )
    case = case.on(model)
    inside, outside = order[:n], order[n:]
    chosen = [inside[i] for i in np.unique(np.linspace(0, n - 1, min(tried, n)).round().astype(int))]
    drawn = np.random.default_rng(case.seed).choice(len(outside), size=min(tried, len(outside)), replace=False)
    kept = [
        mask(model, inside, part),
        *(mask(model, [s for s in inside if s != site], part) for site in chosen),
        *(mask(model, [*inside, outside[i]], part) for i in drawn),
    ]
    asked, values = list(facts or case.forget.working), []
    for some in chunks(len(asked), rows):
        values.append(carried(model, pairs(model, case, asked[some]), part, kept))
        if progress:
            progress(min(some.stop, len(asked)), len(asked))
    f = np.concatenate(values, 1).mean(1)
    without, beside = f[1 : 1 + len(chosen)], f[1 + len(chosen) :]
    return Minimality(tuple(chosen), f[0] - without, beside - f[0], float(f[0]), n)
