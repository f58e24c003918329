"""Resample ablation: what sites write becomes what they write somewhere else."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..knowledge import Case, neutral_working
from ..model import Edit, Site
from ..model.run.lookup import inputs_of
from .mean import constant

if TYPE_CHECKING:
    from ..model import Model


def resample(model: Model, case: Case, sites: Iterable[Site], *, seed: int = 0) -> Edit:
    """Hold the sites' activations at what they are at one token of the case's neutral working text, drawn by the seed.

    All sites take theirs from the same token. Like `mean` it needs output maps with a bias, in which to hold them;
    activations that are drawn anew in each run are no weights. Cost: one forward pass over one passage.

    Raises:
        UserError: no sites, sites that write nothing themselves, or maps without a bias.
    """
    rng = random.Random(seed)
    text = rng.choice(neutral_working(model, case))

    def one_token(modules: list[nn.Module]) -> list[Tensor]:
        read = next(inputs_of(model, modules, [text]))
        at = rng.randrange(len(read[0]))
        return [x[at] for x in read]

    return constant(model, case, sites, "resample", {"seed": seed}, one_token)
