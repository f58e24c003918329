"""The differences that exact interventions make to activations.

Patching: Vig et al. 2020, Meng et al. 2022; zero, mean and resample ablation: Chan et al. 2022, "Causal
scrubbing"; which to choose: Zhang & Nanda 2024, arXiv:2309.16042.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from ..._util.errors import UserError
from ..batch import Batch
from .trace import Place, Trace, trace

if TYPE_CHECKING:
    from ..load import Model

Kind = Literal["patch", "zero", "mean", "resample", "noise"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Differences = dict[Place, list[Tensor]]


def prompt(batch: Batch, row: int) -> Tensor:
    """A row's tokens `[position]` without padding and without the last, after which nothing is predicted."""
    return batch.ids[row][batch.mask[row].bool()][:-1]


@dataclass(frozen=True)
class Intervention:
    """What replaces an activation.

    - `patch`: the activation in the run on the same row of `other`, aligned from the right;
    - `zero`: zero;
    - `mean`: the mean over all tokens of `other`;
    - `resample`: the activation in the run on another row of `other`, drawn by `seed` and aligned in the same way;
    - `noise`: the activation plus Gaussian noise, `scale` standard deviations of each feature over all tokens of
    `other`.

    `other`: counterfactual prompts, one per row. Without them, `mean`, `resample` and `noise` use the prompts
    themselves.
    """

    kind: Kind = "patch"
    other: Batch | None = None
    seed: int = 0
    scale: float = 3.0


class PromptDifferences:
    """The differences that an intervention makes to the activations of each prompt.

    Raises:
        UserError: an unknown kind, a patch without a counterfactual for each prompt, or one prompt to resample from.
    """

    def __init__(self, model: Model, clean: Batch, intervention: Intervention) -> None:
        kind, other = intervention.kind, intervention.other
        if kind not in KINDS:
            raise UserError(f"{kind!r} is not an intervention; choose one of {', '.join(KINDS)}.")
        if kind == "patch" and (other is None or len(other.ids) != len(clean.ids)):
            raise UserError("patching needs a counterfactual prompt for each prompt; give `other` with as many rows.")
        self.model, self.clean, self.intervention = model, clean, intervention
        self.source = clean if other is None else other
        if kind == "resample" and len(self.source.ids) < 2:
            raise UserError("resampling needs at least two prompts to draw from; give more, or use 'mean' or 'zero'.")
        self._moments: dict[Place, list[tuple[Tensor, Tensor]]] = {}

    def compute(self, row: int, run: Trace) -> Differences:
        """By part and layer, for each tap, `[position, unit, width]`: the addition to the prompt's own activations."""
        if self.intervention.kind == "zero":
            return {place: [-value for value in values] for place, values in run.activations.items()}
        if self.intervention.kind in ("patch", "resample"):
            return self._swap(row, run)
        if missing := run.activations.keys() - self._moments.keys():
            self._moments |= self._measure(missing)
        if self.intervention.kind == "mean":
            return {
                place: [mean - value for value, (mean, _) in zip(values, self._moments[place], strict=True)]
                for place, values in run.activations.items()
            }
        return {place: self._noise(row, place, run) for place in run.activations}

    def _swap(self, row: int, run: Trace) -> Differences:
        """The difference to another prompt's run. Zero before the first token that differs or has no counterpart."""
        at = row if self.intervention.kind == "patch" else self._draw_row(row)
        ids, others = prompt(self.clean, row), prompt(self.source, at)
        other = trace(self.model, others, run.activations)
        shared = min(len(ids), len(others))
        apart = (ids[-shared:] != others[-shared:]).nonzero()
        same = len(ids) == len(others)
        first = len(ids) - shared if not same else int(apart[0]) if len(apart) else len(ids)
        return {
            place: [_difference(v, o, first) for v, o in zip(values, other.activations[place], strict=True)]
            for place, values in run.activations.items()
        }

    def _draw_row(self, row: int) -> int:
        """A row of the source other than this one."""
        rng = random.Random(f"{self.intervention.seed}/resample/{row}")
        return rng.choice([i for i in range(len(self.source.ids)) if i != row])

    def _noise(self, row: int, place: Place, run: Trace) -> list[Tensor]:
        seed = random.Random(f"{self.intervention.seed}/noise/{row}/{place}").getrandbits(63)
        generator = torch.Generator().manual_seed(seed)
        out = []
        for value, (_, std) in zip(run.activations[place], self._moments[place], strict=True):
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            out.append(drawn.to(value) * std * self.intervention.scale)
        return out

    def _measure(self, places: Iterable[Place]) -> dict[Place, list[tuple[Tensor, Tensor]]]:
        """Mean and standard deviation of each feature `[unit, width]` over all tokens of the source."""
        places = list(places)
        sums: dict[Place, list[Tensor]] = defaultdict(list)
        tokens = 0
        for row in range(len(self.source.ids)):
            run = trace(self.model, prompt(self.source, row), places)
            tokens += run.runner.length
            for place, values in run.activations.items():
                new = [torch.stack([v.sum(0), v.square().sum(0)]) for v in (value.double() for value in values)]
                sums[place] = [a + b for a, b in zip(sums[place], new, strict=True)] if place in sums else new
        dtype = self.model.dtype
        return {place: [_moments(total / tokens, dtype) for total in totals] for place, totals in sums.items()}


def _moments(means: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation from the means of the values and of their squares `[2, unit, width]`."""
    mean, square = means
    return mean.to(dtype), (square - mean**2).clamp(min=0).sqrt().to(dtype)


def _difference(value: Tensor, other: Tensor, first: int) -> Tensor:
    """The difference from `value` to `other`, aligned from the right, from position `first` on."""
    out = torch.zeros_like(value)
    if n := len(value) - first:
        out[first:] = other[-n:] - value[first:]
    return out
