"""Random sites: what every choice of sites is compared with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..model import Part, Site

if TYPE_CHECKING:
    from ..model import Model


def random_sites(model: Model, sites: Iterable[Site], *, seed: int = 0) -> list[Site]:
    """As many other sites of the same parts, the same number in each layer, drawn by the seed.

    Where a layer has too few others, as many as there are; of a whole `attn` or `mlp` there is no other.
    """
    rng = np.random.default_rng(seed)
    given = set(sites)
    out: list[Site] = []
    places: set[tuple[int, Part]] = {(s.layer, s.part) for s in given}
    for layer, part in sorted(places):
        taken = {s.index for s in given if (s.layer, s.part) == (layer, part)}
        free = [i for i in range(model.units(part)) if i not in taken and None not in taken]
        drawn = rng.choice(free, size=min(len(taken), len(free)), replace=False)
        out += [Site(layer, part, int(i)) for i in sorted(drawn)]
    return out
