"""Resample ablation: replace what sites write by what they write at another token."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..knowledge import Case, accepts_spec, neutral_working
from ..model import Edit, Site
from ..model.run.lookup import inputs_of
from .mean import constant

if TYPE_CHECKING:
    from ..model import Model


@accepts_spec
def resample(model: Model, case: Case, sites: Iterable[Site], *, seed: int = 0) -> Edit:
    """Fix the sites' activations at their values at one token of the case's neutral working text, drawn by the seed.

    All sites take their values from the same token. Like `mean`, this needs output maps with a bias. An edit of the
    weights cannot draw new activations in each run. Cost: one forward pass over one passage.

    Raises:
        UserError: no sites, sites that do not write to the residual stream directly, or maps without a bias.
    """
    rng = random.Random(seed)
    text = rng.choice(neutral_working(model, case))

    def one_token(modules: list[nn.Module]) -> list[Tensor]:
        read = next(inputs_of(model, modules, [text]))
        at = rng.randrange(len(read[0]))
        return [x[at] for x in read]

    return constant(model, case, sites, "resample", {"seed": seed}, one_token)
