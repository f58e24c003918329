"""Whether a paraphrase finds the same sites: the overlap of chosen sites, with its null."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from .._util.errors import UserError
from ..knowledge import Case, Fact
from ..model import Model, Part, chunks
from .attribution import attribute
from .counterfactual import pairs

RESAMPLES = 1000


@dataclass(frozen=True)
class Stability:
    """Overlap of the `k` best sites of a fact behind one template with those behind another, as a share of `k`.

    `same` `[fact]`: with the same fact's, the mean over pairs of templates; `others` `[fact]`: the null, with
    the other facts' behind the other template; `chance`: what `k` sites drawn at random share.
    """

    part: Part
    k: int
    same: np.ndarray
    others: np.ndarray
    chance: float

    @property
    def ratio(self) -> float:
        """Overlap with itself as a multiple of the null."""
        return float(self.same.mean() / max(self.others.mean(), 1e-12))

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """95% bootstrap interval of `ratio` over facts."""
        rows = np.random.default_rng(seed).integers(len(self.same), size=(RESAMPLES, len(self.same)))
        ratios = self.same[rows].mean(1) / self.others[rows].mean(1).clip(1e-12)
        low, high = np.quantile(ratios, [0.025, 0.975])
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval()
        return (
            f"{self.k} {self.part}s: {self.same.mean():.2f} shared between paraphrases, {self.others.mean():.3f} with "
            f"other facts ({self.ratio:.1f} times, {low:.1f} to {high:.1f}), {self.chance:.4f} by chance"
        )


def stability(
    model: Model,
    case: Case,
    *,
    k: int = 50,
    part: Part = "neuron",
    contrasted: bool = True,
    rows: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Stability:
    """Locate each forget fact by itself behind each of its working templates, and compare.

    Args:
        k: how many of the best sites of a fact are taken.
        contrasted: take the mean of the working retain facts of the relation, behind the same template,
            off each fact's scores.

    Raises:
        UserError: fewer than two templates or facts, or `k` larger than there are sites.

    Cost: two forward passes and one backward pass over the facts, for each template.
    """
    case = case.on(model)
    relations = case.forgotten_relations
    forget = list(case.forget.working)
    retain = [f for f in case.retain.working if f.relation in relations]
    width = min(len(f.prompts) for f in forget)
    if width < 2 or len(forget) < 2:
        raise UserError(
            f"stability compares templates and facts; the case has {width} working templates and {len(forget)} forget "
            "facts, of each it takes two: add some to the case file."
        )
    n_sites = model.n_layers * model.units(part)
    if not 0 < k < n_sites:
        raise UserError(f"k={k} of {n_sites} {part} sites: ask for 1 to {n_sites - 1}.")
    chosen = []
    for turn in range(width):
        asked = [f.asked(f.prompts[turn % len(f.prompts)]) for f in [*forget, *retain]]
        shares = _shares(model, case, asked, part, rows)
        own, rest = shares[: len(forget)], shares[len(forget) :]
        scores = own - rest.mean(0) if contrasted and len(rest) else own
        chosen.append([set(np.argsort(-row, kind="stable")[:k].tolist()) for row in scores])
        if progress:
            progress(turn + 1, width)
    same = np.array([[len(a & b) / k for a, b in zip(x, y, strict=True)] for x, y in permutations(chosen, 2)])
    others = np.array(
        [
            [np.mean([len(a & b) / k for j, b in enumerate(y) if j != i]) for i, a in enumerate(x)]
            for x, y in permutations(chosen, 2)
        ]
    )
    return Stability(part, k, same.mean(0), others.mean(0), k / n_sites)


def _shares(model: Model, case: Case, facts: Sequence[Fact], part: Part, rows: int) -> np.ndarray:
    """Scores as shares of each fact's whole effect, `[fact, site]`."""
    out = []
    for some in chunks(len(facts), rows):
        scores, falls = attribute(model, pairs(model, case, facts[some]), (part,))
        out.append(scores[part].reshape(len(falls), -1) / np.abs(falls).clip(1e-9)[:, None])
    return np.concatenate(out)
