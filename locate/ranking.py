"""The sites that make up a circuit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import Model, Part, Site
from .localization import Localization


@dataclass(frozen=True)
class Ranking:
    """How to order a localization's sites for a circuit.

    Attributes:
        part: the part whose sites make up the circuit.
        by: the column to rank them by. The default is the forget side alone: a circuit is everything that carries the
            behaviour, including machinery that other facts share, and the contrast leaves that machinery out.
    """

    part: Part = "neuron"
    by: str = "forget"

    def sites(self, found: Localization) -> list[Site]:
        """All sites of the part, best first."""
        return found.top(found.grid(self.part).size, part=self.part, by=self.by)


BY_FORGET_SCORE = Ranking()


def site_mask(model: Model, sites: Sequence[Site], part: Part) -> Tensor:
    """Sites of one part as bool `[layer, unit]`."""
    out = torch.zeros(model.n_layers, model.units(part), dtype=torch.bool, device=model.device)
    for site in sites:
        out[site.layer, model.unit(site)] = True
    return out
