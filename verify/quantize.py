"""Does it come back when the weights are rounded?

A small change of the weights may vanish in the rounding. Zhang et al. 2024, "Catastrophic Failure of LLM Unlearning
via Quantization", arXiv:2410.16454.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._util.errors import UserError
from ..knowledge import Case
from ..model import quantized
from .pools import attack_groups, pool_cost, pool_probability_by_unit, pools
from .reading import Reading, reading

if TYPE_CHECKING:
    from ..model import Model


def quantize(model: Model, case: Case, *, bits: Sequence[int] = (8, 4)) -> Reading:
    """Probability of the answers among 60 of the relation, with the weights rounded; the worst over `bits`.

    Round to nearest, in groups of 64 input features. What is rounded is the weights alone, put into the plain
    architecture, so that hiding which sits around the weights (an output filter) does not come along.

    Args:
        bits: the widths to try; `details["by_bits"]` has the means of each, by group.

    Cost: every fact and twin asked once a width; memory for one more copy of the weights.

    Raises:
        UserError: no widths, or one outside of 2 to 16.
    """
    if not bits:
        raise UserError("there is nothing to round to; give bits, such as (8, 4).")
    case = case.on(model)
    facts, among = attack_groups(case), pools(case)
    found: dict[int, dict[str, dict[str, float]]] = {}
    for width in bits:
        copy = quantized(model, width)
        found[width] = {group: pool_probability_by_unit(copy, some, among) for group, some in facts.items()}
    samples = {g: {s: max(found[b][g][s] for b in bits) for s in found[bits[0]][g]} for g in facts}
    mean = np.mean(list(samples["forget"].values()))
    return reading(
        "quantize",
        samples,
        f"With weights rounded to {' or '.join(map(str, bits))} bits the answers get a probability of {mean:.2f}.",
        seed=case.seed,
        details={
            "by_bits": {
                str(b): {g: float(np.mean(list(v.values()))) for g, v in of.items()} for b, of in found.items()
            },
        },
        cost=len(bits) * sum(pool_cost(model, some, among) for some in facts.values()),
    )
