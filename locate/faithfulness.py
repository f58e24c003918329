"""How much of a behaviour the best sites carry alone: faithfulness over circuit size.

Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark", arXiv:2504.13151 (faithfulness, CPR, CMD).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec
from ..model import Model, Part, chunks
from ..model.run.hooks import Hook, point, record, run
from ..model.run.single_precision import single_precision
from .contrast import Progress
from .counterfactual import Pairs, log_odds, pairs
from .figures.faithfulness import plot_faithfulness
from .localization import Localization
from .ranking import BY_FORGET_SCORE, Ranking, site_mask

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Faithfulness:
    """How much of a behaviour remains when only the best sites keep their activations.

    With m the answer's log-odds, f(C) = (m(C) - m(none)) / (m(all) - m(none)).

    Attributes:
        part: the part whose sites make up the circuits.
        sizes: each circuit's share of the part's sites, `[size]`.
        values: f by circuit and fact, `[size, fact]`.
        n_sites: number of sites of the part.
    """

    part: Part
    sizes: np.ndarray
    values: np.ndarray
    n_sites: int

    @property
    def curve(self) -> np.ndarray:
        """The mean of f over facts, `[size]`."""
        return self.values.mean(1)

    @property
    def cpr(self) -> float:
        """Circuit performance ratio: the area under f over size. A higher ratio finds the behaviour sooner."""
        return float(np.trapezoid(self.curve, self.sizes))

    @property
    def cmd(self) -> float:
        """Circuit-model distance: the area under |1 - f|. It is 0 if every circuit behaves like the whole model."""
        return float(np.trapezoid(np.abs(1 - self.curve), self.sizes))

    def smallest(self, level: float = 0.9) -> float | None:
        """The smallest size from which on f is at least `level`, or None if there is no such size."""
        below = np.flatnonzero(self.curve < level)
        first = int(below[-1]) + 1 if len(below) else 0
        return float(self.sizes[first]) if first < len(self.sizes) else None

    def plot(self) -> Figure:
        """Draw f over size, the mean in red and each fact in grey."""
        label = f"share of {self.n_sites:,} {self.part}s in the circuit, %"
        title = f"CPR {self.cpr:.2f}, CMD {self.cmd:.2f}; grey: single facts"
        return plot_faithfulness(self.sizes, self.values, label, title)


@accepts_spec
@torch.no_grad()
def faithfulness(
    model: Model,
    case: Case,
    found: Localization,
    *,
    ranking: Ranking = BY_FORGET_SCORE,
    sizes: Sequence[float] = SIZES,
    facts: Sequence[Item] | None = None,
    rows: int = 16,
    progress: Progress | None = None,
) -> Faithfulness:
    """Keep a part's best sites, patch its other sites from the counterfactual run, and measure what remains.

    Args:
        found: the localization that ranks the sites.
        ranking: the part, and the column to rank by.
        sizes: rising shares of the part's sites; 1 keeps all.
        facts: the working forget facts by default.
        rows: facts in one batch.
        progress: called with the number of facts done and the number of all facts.

    Raises:
        UserError: a part without scores, or sizes that do not rise within 0 and 1.

    Cost: two forward passes over the facts, and one for each size.
    """
    shares = np.asarray(sizes, float)
    if not len(shares) or (np.diff(shares) <= 0).any() or shares[0] <= 0 or shares[-1] > 1:
        raise UserError(f"sizes must rise within 0 and 1, not {list(sizes)}; the default is {SIZES}.")
    chosen = list(facts or case.forget.working)
    order = ranking.sites(found)
    n_sites = len(order)
    circuits = [site_mask(model, order[: max(1, round(share * n_sites))], ranking.part) for share in shares]
    values = circuit_faithfulness(model, case, chosen, ranking.part, circuits, rows=rows, progress=progress)
    return Faithfulness(ranking.part, shares, values, n_sites)


def circuit_faithfulness(
    model: Model,
    case: Case,
    facts: Sequence[Item],
    part: Part,
    circuits: Sequence[Tensor],
    *,
    rows: int,
    progress: Progress | None = None,
) -> np.ndarray:
    """f of each circuit, given as bool `[layer, unit]`, on each fact: `[circuit, fact]`.

    Circuits differ by little, so weights of half precision are in float32 meanwhile.
    """
    values = []
    for batch in chunks(len(facts), rows):
        with single_precision(model):
            values.append(_batch_faithfulness(model, pairs(model, case, facts[batch]), part, circuits))
        if progress:
            progress(min(batch.stop, len(facts)), len(facts))
    return np.concatenate(values, 1)


def _batch_faithfulness(model: Model, both: Pairs, part: Part, circuits: Sequence[Tensor]) -> np.ndarray:
    names = [point(part, layer) for layer in range(model.n_layers)]
    other = record(model, both.corrupted, names).activations
    valid = (both.clean.mask * both.corrupted.mask).bool()

    def odds(circuit: Tensor) -> np.ndarray:
        hooks = [(name, _patch_others(other[name], circuit[layer], valid)) for layer, name in enumerate(names)]
        return log_odds(run(model, both.clean, hooks), both).double().cpu().numpy()

    whole = log_odds(run(model, both.clean, []), both).double().cpu().numpy()
    none = odds(torch.zeros_like(circuits[0]))
    return np.stack([(odds(circuit) - none) / (whole - none) for circuit in circuits])


def _patch_others(other: Tensor, circuit: Tensor, valid: Tensor) -> Hook:
    """Put counterfactual values into all units outside the circuit, where neither run has padding."""

    def hook(value: Tensor) -> Tensor:
        shape = (1, 1, -1) + (1,) * (value.ndim - 3)
        at = valid.reshape(*valid.shape, *(1,) * (value.ndim - 2))
        return torch.where(at & ~circuit.view(shape), other, value)

    return hook
