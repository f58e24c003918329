"""Check an estimate against the exact intervention.

Kramár et al. 2024, arXiv:2403.00745, evaluate attribution patching in this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue
from scipy import stats

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import Model, Part, Site
from ..model.run.interventions import Kind
from .contrast import Progress
from .counterfactual import pairs
from .exact import patching
from .methods import METHODS, estimates


@dataclass(frozen=True)
class Agreement:
    """Attributed and exact effects of the same sites on the same facts.

    Attributes:
        sites: the compared sites.
        attributed: mean estimated effect over the facts, `[site]`, in log-odds.
        exact: mean effect of the intervention, `[site]`, in log-odds.
        n_facts: number of facts.
        kind: the intervention: `patch`, or `zero`.
    """

    sites: tuple[Site, ...]
    attributed: np.ndarray
    exact: np.ndarray
    n_facts: int
    kind: Kind = "patch"

    @property
    def rank_correlation(self) -> float:
        """Spearman's rank correlation over the sites."""
        return float(np.corrcoef(stats.rankdata(self.attributed), stats.rankdata(self.exact))[0, 1])

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "rank_correlation": self.rank_correlation,
            "n_sites": len(self.sites),
            "n_pairs": self.n_facts,
            "kind": self.kind,
            "sites": [str(s) for s in self.sites],
            "points": [[float(a), float(b)] for a, b in zip(self.attributed, self.exact, strict=True)],
        }


@accepts_spec
def agreement(
    model: Model,
    case: Case,
    sites: Sequence[Site],
    *,
    method: str = "attribution",
    n_facts: int = 4,
    progress: Progress | None = None,
) -> Agreement:
    """Compare a locator's estimates with the exact effects of what it estimates, on the first forget facts.

    Args:
        method: a locator of `estimates`: `taylor` is compared with zeroing, the others with patching.
        n_facts: how many of the working forget facts.
        progress: called with the number of patched cells done and the number of all cells.

    Raises:
        UserError: a locator that estimates something else, fewer than two sites, or a site that the model does not
            have or cannot record.

    Cost: the estimate on `n_facts` facts, and `patching` of the sites on them.
    """
    if method not in estimates():
        raise UserError(f"{method!r} does not estimate an intervention; check one of {', '.join(estimates())}.")
    if len(set(sites)) < 2:
        raise UserError("agreement compares at least two sites; take them from a localization's `top`.")
    for site in sites:
        model.check_site(site)
    facts = list(case.forget.working)[:n_facts]
    parts: tuple[Part, ...] = tuple(dict.fromkeys(s.part for s in sites))
    score, kind = METHODS[method].scores, METHODS[method].estimates
    assert score, "an estimate scores pairs"
    assert kind, "it estimates an intervention"
    scores, _ = score(model, pairs(model, case, facts), parts)
    attributed = np.array([scores[s.part][:, s.layer, model.unit(s)].mean() for s in sites])
    exact = patching(model, case, sites, facts=facts, kind=kind, progress=progress).mean(0)
    return Agreement(tuple(sites), attributed, exact, len(facts), kind)
