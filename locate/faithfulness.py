"""How much of the behaviour the chosen sites carry alone: faithfulness over circuit size, and its areas.

Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark", arXiv:2504.13151 (faithfulness, CPR, CMD).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Fact
from ..model import Model, Part, Site, chunks
from ..model.run.hooks import Hook, point, record, run
from .counterfactual import Pairs, log_odds, pairs
from .figures.faithfulness import plot_faithfulness
from .localization import Localization

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Faithfulness:
    """What remains of a behaviour when only the best sites run as they do on the prompt.

    `sizes` `[size]`: share of the part's sites that is kept; `values` `[size, fact]`: by fact,
    f(C) = (m(C) - m(none)) / (m(all) - m(none)) with m the answer's log-odds.
    """

    part: Part
    sizes: np.ndarray
    values: np.ndarray
    n_sites: int

    @property
    def curve(self) -> np.ndarray:
        """f(C), the mean over facts, `[size]`."""
        return self.values.mean(1)

    @property
    def cpr(self) -> float:
        """Circuit performance ratio, the area under f over the share kept; higher finds the behaviour sooner."""
        return float(np.trapezoid(self.curve, self.sizes))

    @property
    def cmd(self) -> float:
        """Circuit-model distance, the area under |1 - f|; 0 where the circuit behaves as the whole at every size."""
        return float(np.trapezoid(np.abs(1 - self.curve), self.sizes))

    def smallest(self, level: float = 0.9) -> float | None:
        """The smallest share kept from which on f stays at a level; None where it never does (f is 1 at all sites)."""
        below = np.flatnonzero(self.curve < level)
        first = int(below[-1]) + 1 if len(below) else 0
        return float(self.sizes[first]) if first < len(self.sizes) else None

    def plot(self) -> Figure:
        """f over the share of sites kept, the mean and the facts behind it."""
        label = f"share of {self.n_sites:,} {self.part}s in the circuit, %"
        title = f"CPR {self.cpr:.2f}, CMD {self.cmd:.2f}; grey: single facts"
        return plot_faithfulness(self.sizes, self.values, label, title)


@torch.no_grad()
def faithfulness(
    model: Model,
    case: Case,
    found: Localization,
    *,
    part: Part = "neuron",
    by: str = "forget",
    sizes: Sequence[float] = SIZES,
    facts: Sequence[Fact] | None = None,
    rows: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Faithfulness:
    """Keep a part's best sites, patch all its others from the counterfactual run, and see what is left.

    The default order is the forget side alone: a circuit is what carries the behaviour, shared machinery
    included, whereas the contrast leaves out what other facts need too.

    Args:
        by: the column of the localization that orders the sites.
        sizes: shares of the part's sites, rising; 1 keeps all.
        facts: working forget facts by default.

    Raises:
        UserError: a part that was not scored, or sizes that are no rising shares.

    Cost: two forward passes over the facts, and one for each size.
    """
    shares = np.asarray(sizes, float)
    if not len(shares) or (np.diff(shares) <= 0).any() or shares[0] <= 0 or shares[-1] > 1:
        raise UserError(f"sizes must rise within 0 and 1, and are {list(sizes)}; the usual ones are {SIZES}.")
    case = case.on(model)
    chosen = list(facts or case.forget.working)
    n_sites = found.grid(part).size
    order = found.top(n_sites, part=part, by=by)
    kept = [mask(model, order[: max(1, round(share * n_sites))], part) for share in shares]
    values = []
    for some in chunks(len(chosen), rows):
        both = pairs(model, case, chosen[some])
        values.append(carried(model, both, part, kept))
        if progress:
            progress(min(some.stop, len(chosen)), len(chosen))
    return Faithfulness(part, shares, np.concatenate(values, 1), n_sites)


def carried(model: Model, both: Pairs, part: Part, kept: Sequence[Tensor]) -> np.ndarray:
    """f of each set of kept sites, each a bool `[layer, unit]`: `[set, row]`."""
    names = [point(part, layer) for layer in range(model.n_layers)]
    other = record(model, both.corrupted, names).activations
    seen = (both.clean.mask * both.corrupted.mask).bool()

    def odds(keep: Tensor) -> np.ndarray:
        hooks = [(name, _swap(other[name], keep[layer], seen)) for layer, name in enumerate(names)]
        return log_odds(run(model, both.clean, hooks), both).double().cpu().numpy()

    whole = log_odds(run(model, both.clean, []), both).double().cpu().numpy()
    none = odds(torch.zeros_like(kept[0]))
    return np.stack([(odds(keep) - none) / (whole - none) for keep in kept])


def _swap(other: Tensor, keep: Tensor, seen: Tensor) -> Hook:
    """Counterfactual values at all units that are not kept, where neither run is padding."""

    def hook(value: Tensor) -> Tensor:
        shape = (1, 1, -1) + (1,) * (value.ndim - 3)
        at = seen.reshape(*seen.shape, *(1,) * (value.ndim - 2))
        return torch.where(at & ~keep.view(shape), other, value)

    return hook


def mask(model: Model, sites: Sequence[Site], part: Part) -> Tensor:
    """Sites of one part as bool `[layer, unit]`."""
    out = torch.zeros(model.n_layers, model.units(part), dtype=torch.bool, device=model.device)
    for site in sites:
        out[site.layer, cast(int, site.index)] = True
    return out
