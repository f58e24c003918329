"""Is the knowledge only covered by a few directions of the weights? Take singular components of the matrices out.

What a closed form writes over lies in few singular components of the matrices that it writes to. Youssef et al. 2025,
"Tracing and Reversing Edits in LLMs", arXiv:2505.20819, take the largest ones out, which needs no training and no
original.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec
from ..knowledge.scoring import own_pool_probability
from .check import Setting
from .edited import groups, restored
from .pools import Pools, attack_groups, pool_cost, pool_probability_by_unit, pools, with_rivals
from .reading import Reading, make_reading
from .units import halves, too_few

if TYPE_CHECKING:
    from ..model import Model

COUNTS = (1, 2, 4, 8, 16, 32)
RIVALS = 9  # wrong answers that an answer is compared with while choosing
End = Literal["largest", "lowest"]
ENDS: tuple[End, ...] = ("largest", "lowest")


@dataclass(frozen=True)
class Removal:
    """Which singular components are taken out: so many of one end, of each matrix of a group (`edited.groups`)."""

    group: str
    end: End
    count: int

    def __str__(self) -> str:
        return f"{self.count} {self.end} ({self.group})"


@accepts_spec
def spectral(
    model: Model,
    case: Case,
    *,
    edited: Sequence[str] = (),
    counts: Sequence[int] = COUNTS,
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """The probability of the answers in their pools (`verify.pools`), with singular components taken out.

    On half of the units, a group of matrices, an end of the spectrum and a number of components are chosen: first the
    group and the end at the middle number, then the number. What helps these answers most against the wrong answers
    that the model prefers is tested on the other half; then the halves swap. Nothing may be taken out, too. Twins
    choose for themselves in the same way, so that what is gained by choosing cancels. Afterwards the weights are
    restored bit for bit.

    Args:
        edited: the names of the matrices that an edit changed, where that is known; by default the output maps of all
            MLPs. They are tried together, by the kind of map, and in four contiguous parts of the layers.
        counts: the numbers of components to try.

    `details["chosen"]` has what each half chose, by group.

    Cost: for each group of items, their pools asked twice, and smaller ones once for every choice (`spectral_cost`);
    one eigendecomposition for each matrix, in double precision.

    Raises:
        UserError: no counts or one below 1, facts of one unit, or a name that is not a matrix of a block.
    """
    if not counts or min(counts) < 1:
        raise UserError(f"counts is {tuple(counts)}; give numbers of components from 1 on, such as {COUNTS}.")
    facts, among = attack_groups(case), pools(case)
    if few := too_few(facts["forget"], facts["twins"]):
        raise UserError(few)
    attack = _Attack(model, groups(model, edited), tuple(sorted(set(counts))))
    samples: dict[str, dict[str, float]] = {group: {} for group in facts}
    chosen: dict[str, list[str]] = {group: [] for group in facts}
    for name, items in facts.items():
        rivals = with_rivals(model, items, among, RIVALS) if items else []
        for known, asked in halves(items, case.seed) if items else ():
            best = attack.choose([rivals[i] for i in known])
            with attack.removed(best):
                samples[name] |= pool_probability_by_unit(model, [items[i] for i in asked], among)
            chosen[name].append(str(best or "none"))
            if progress:
                progress(sum(map(len, chosen.values())), 2 * len(facts))
    mean = np.mean(list(samples["forget"].values()))
    return make_reading(
        "spectral",
        samples,
        f"With singular components of the weights taken out, held-out answers get a probability of {mean:.2f}.",
        seed=case.seed,
        details={"chosen": chosen, "matrices": len(attack.components)},
        cost=_rows(model, facts, among, attack.choices),
    )


def spectral_cost(model: Model, case: Case, setting: Setting) -> float:
    """Every group of items asked for their rivals, for every choice with the rivals alone, and once more in full."""
    of = groups(model, setting.edited)
    return _rows(model, attack_groups(case), pools(case), _choices(len(of), len(COUNTS)))


def _rows(model: Model, facts: Mapping[str, Sequence[Item]], among: Pools, choices: int) -> float:
    small = {relation: pool[: 1 + RIVALS] for relation, pool in among.items()}
    return sum(
        2 * pool_cost(model, items, among) + choices * pool_cost(model, items, small)
        for items in facts.values()
        if items
    )


def _choices(n_groups: int, n_counts: int) -> int:
    """Nothing, every group and end at one number, and every other number."""
    return 1 + len(ENDS) * n_groups + n_counts - 1


@dataclass(frozen=True)
class Components:
    """Singular vectors of a matrix on its smaller side: `bases[end]` `[..., d, k]`, the outermost first.

    `left`: whether the smaller side is that of the rows.
    """

    bases: Mapping[End, Tensor]
    left: bool

    @classmethod
    def of(cls, weight: Tensor, k: int) -> Components:
        """The `k` outermost vectors of each end of a matrix `[..., row, column]`, in double precision."""
        exact = weight.detach().double()
        left = exact.shape[-2] <= exact.shape[-1]
        gram = exact @ exact.mT if left else exact.mT @ exact
        vectors = torch.linalg.eigh(gram).eigenvectors
        return cls({"largest": vectors[..., -k:].flip(-1), "lowest": vectors[..., :k].clone()}, left)

    def without(self, weight: Tensor, end: End, count: int) -> Tensor:
        """The matrix with so many components of one end taken out."""
        basis, exact = self.bases[end][..., :count], weight.double()
        part = basis @ (basis.mT @ exact) if self.left else (exact @ basis) @ basis.mT
        return (exact - part).to(weight.dtype)


class _Attack:
    """The groups of matrices of a model, and their singular vectors."""

    def __init__(self, model: Model, of: Mapping[str, Sequence[str]], counts: tuple[int, ...]) -> None:
        self.model, self.counts = model, counts
        names = dict.fromkeys(name for group in of.values() for name in group)
        finite = [name for name in names if model.parameters[name].isfinite().all()]
        self.components = {name: Components.of(model.parameters[name], counts[-1]) for name in finite}
        self.groups = {what: [name for name in group if name in self.components] for what, group in of.items()}
        self.choices = _choices(len(of), len(counts))

    def choose(self, items: Sequence[Item]) -> Removal | None:
        """What helps these items' answers most among their foils; `None` if nothing helps."""
        middle = self.counts[len(self.counts) // 2]
        tried = [Removal(group, end, middle) for group in self.groups for end in ENDS]
        helped = {removal: self._mean(items, removal) for removal in tried}
        best = max(helped, key=helped.__getitem__)
        helped |= {r: self._mean(items, r) for n in self.counts if (r := replace(best, count=n)) not in helped}
        best = max(helped, key=helped.__getitem__)
        return best if helped[best] > self._mean(items, None) else None

    @contextmanager
    def removed(self, removal: Removal | None) -> Iterator[None]:
        """Take components out, for as long as the context lasts."""
        names = self.groups[removal.group] if removal else []
        with restored(self.model, names), torch.no_grad():
            for name in names:
                weight = self.model.parameters[name]
                assert removal is not None, "without a removal there are no names"
                weight.copy_(self.components[name].without(weight, removal.end, removal.count))
            yield

    def _mean(self, items: Sequence[Item], removal: Removal | None) -> float:
        """The mean probability of the items' answers among their foils; -1 where it is not finite."""
        with self.removed(removal):
            mean = float(own_pool_probability(self.model, items).mean())
        return mean if np.isfinite(mean) else -1.0
