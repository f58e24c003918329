"""Whether a paraphrase finds the same sites: the overlap of the best sites, with its null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec
from ..model import Model, Part, chunks
from .attribution import attribution_scores
from .contrast import Progress
from .counterfactual import pairs

RESAMPLES = 1000


@dataclass(frozen=True)
class Stability:
    """How much the `k` best sites overlap between two templates, as a share of `k`.

    Attributes:
        part: the part of the sites.
        k: number of best sites.
        same: overlap of a fact's sites between templates, the mean over pairs of templates, `[fact]`.
        others: the null, overlap of a fact's sites with other facts' sites in the other template, `[fact]`.
        chance: expected overlap of `k` random sites.
    """

    part: Part
    k: int
    same: np.ndarray
    others: np.ndarray
    chance: float

    @property
    def ratio(self) -> float:
        """The overlap with the same fact as a multiple of the null."""
        return float(self.same.mean() / max(self.others.mean(), 1e-12))

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """The 95% bootstrap interval of `ratio` over facts."""
        rows = np.random.default_rng(seed).integers(len(self.same), size=(RESAMPLES, len(self.same)))
        ratios = self.same[rows].mean(1) / self.others[rows].mean(1).clip(1e-12)
        low, high = np.quantile(ratios, [0.025, 0.975])
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval()
        return (
            f"{self.k} {self.part}s: paraphrases share {self.same.mean():.2f}, other facts {self.others.mean():.3f} "
            f"({self.ratio:.1f} times, {low:.1f} to {high:.1f}), random sites {self.chance:.4f}"
        )


@accepts_spec
def stability(
    model: Model,
    case: Case,
    *,
    k: int = 50,
    part: Part = "neuron",
    contrast: bool = True,
    templates: int | None = None,
    rows: int = 16,
    progress: Progress | None = None,
) -> Stability:
    """Locate each forget fact alone, in each of its working templates, and compare the best sites.

    Args:
        k: number of best sites of a fact to compare.
        part: the part of the sites.
        contrast: subtract the mean over the working retain facts of the relation, in the same template, from each
            fact's scores.
        templates: use only the first so many working templates; by default all that each fact has.
        rows: facts in one batch.
        progress: called with the number of templates done and the number of all templates.

    Raises:
        UserError: fewer than two templates or facts, or `k` larger than there are sites.

    Cost: two forward passes and one backward pass over the facts, for each template.
    """
    forget, retain = list(case.forget.working), case.same_relation(case.retain.working)
    width = min(len(f.prompts) for f in forget)
    if templates is not None and not 2 <= templates <= width:
        raise UserError(f"templates={templates} of {width} that each fact has: give 2 to {width}.")
    if width < 2 or len(forget) < 2:
        raise UserError(
            f"stability needs two working templates and two forget facts; the case has {width} and {len(forget)}. Add "
            "some to the case file."
        )
    n_sites = model.n_layers * model.units(part)
    if not 0 < k < n_sites:
        raise UserError(f"k={k} of {n_sites} {part} sites: ask for 1 to {n_sites - 1}.")
    best = []
    width = templates or width
    for turn in range(width):
        facts = [f.asked(f.prompts[turn % len(f.prompts)]) for f in [*forget, *retain]]
        shares = _shares(model, case, facts, part, rows)
        scores, baseline = shares[: len(forget)], shares[len(forget) :]
        scores = scores - baseline.mean(0) if contrast and len(baseline) else scores
        best.append([set(np.argsort(-row, kind="stable")[:k].tolist()) for row in scores])
        if progress:
            progress(turn + 1, width)
    couples = list(permutations(best, 2))
    same = np.array([[len(a & b) / k for a, b in zip(x, y, strict=True)] for x, y in couples])
    others = np.array([[_overlap_with_others(i, a, y, k) for i, a in enumerate(x)] for x, y in couples])
    return Stability(part, k, same.mean(0), others.mean(0), k / n_sites)


def _overlap_with_others(fact: int, sites: set[int], by_fact: Sequence[set[int]], k: int) -> float:
    """Mean overlap of one fact's sites with the sites of all other facts."""
    return float(np.mean([len(sites & other) / k for i, other in enumerate(by_fact) if i != fact]))


def _shares(model: Model, case: Case, facts: Sequence[Item], part: Part, rows: int) -> np.ndarray:
    """Scores as shares of each fact's whole effect, `[fact, site]`."""
    out = []
    for batch in chunks(len(facts), rows):
        scores, falls = attribution_scores(model, pairs(model, case, facts[batch]), (part,))
        out.append(scores[part].reshape(len(falls), -1) / np.abs(falls).clip(1e-9)[:, None])
    return np.concatenate(out)
