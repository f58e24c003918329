"""Does the knowledge come back when the weights are rounded?

Rounding can undo a small change of the weights. Zhang et al. 2024, "Catastrophic Failure of LLM Unlearning
via Quantization", arXiv:2410.16454.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec
from ..model import quantized
from .check import Setting
from .pools import attack_groups, pool_cost, pool_costs, pool_probability_by_unit, pools
from .reading import Reading, make_reading

if TYPE_CHECKING:
    from ..model import Model


BITS = (8, 4)


@accepts_spec
def quantize(model: Model, case: Case, *, bits: Sequence[int] = BITS) -> Reading:
    """The probability of the answers in their pools (`verify.pools`), with rounded weights; the highest over `bits`.

    Weights are rounded to nearest, in groups of 64 input features. The rounded weights alone go into the plain
    architecture, so whatever hides answers outside the weights (an output filter) is left out.

    Args:
        bits: the widths to try; `details["by_bits"]` has the means of each, by group.

    Cost: every fact and twin asked once for each width; memory for one more copy of the weights.

    Raises:
        UserError: no widths, or a width outside 2 to 16.
    """
    if not bits:
        raise UserError("bits is empty; give at least one width, such as (8, 4).")
    facts, among = attack_groups(case), pools(case)
    found: dict[int, dict[str, dict[str, float]]] = {}
    for width in bits:
        copy = quantized(model, width)
        found[width] = {g: pool_probability_by_unit(copy, group, among) for g, group in facts.items()}
    samples = {g: {s: float(np.max([found[b][g][s] for b in bits])) for s in found[bits[0]][g]} for g in facts}
    mean = np.mean(list(samples["forget"].values()))
    return make_reading(
        "quantize",
        samples,
        f"With weights rounded to {' or '.join(map(str, bits))} bits, the answers get a probability of {mean:.2f}.",
        seed=case.seed,
        details={
            "by_bits": {
                str(b): {g: float(np.mean(list(v.values()))) for g, v in groups.items()} for b, groups in found.items()
            },
        },
        cost=len(bits) * sum(pool_cost(model, group, among) for group in facts.values()),
    )


def quantize_cost(model: Model, case: Case, setting: Setting) -> float:
    """Every fact and twin asked once for each width."""
    return len(BITS) * sum(pool_costs(model, case).values())
