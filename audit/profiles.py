"""What each profile of an audit does, and how hard its attacks may try."""

from __future__ import annotations

import dataclasses
from typing import Literal

from ..verify import Budget
from ..verify.relearn import Way

Profile = Literal["quick", "standard", "full"]
# SmolLM2's shallow sibling, 18 capitals in three folds: .47, .57, .54, .51 after 1, 2, 4 and 8 steps; one that was
# trained past silence .21, .27, .36, .35.
CAP = Budget(steps=4, lr=5e-5, measured=(1, 2, 4))
# Of a sibling trained past silence, 18 capitals in two folds: by LoRA at 1e-3 .34, .36, .31 after 2, 4 and 8 steps, at
# 3e-3 .36, .32, .21, at 1e-2 .24, .14, .07; by SGD at 3e-3 .35, .38, .25, at 1e-2 .21, .02, .02. Twins: .01 or below.
LORA = Budget(steps=4, lr=1e-3, measured=(1, 2, 4))
SGD = Budget(steps=4, lr=3e-3, measured=(1, 2, 4))
CAPS = {"relearn": CAP, "benign": CAP, "relearn_lora": LORA, "relearn_sgd": SGD}
WAYS: dict[str, Way] = {"relearn": "adamw", "relearn_lora": "lora", "relearn_sgd": "sgd"}
ASKING = ("recall", "paraphrase", "probe", "collateral", "membership")
MORE = ("extraction", "logit_lens", "depth", "quantize", "direction_ablation", "soft_prompt")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a profile does: the checks that ask, the attacks that train, and budgets.

    `rates` are further learning rates of relearning, as multiples of the cap's.
    """

    asking: tuple[str, ...] = ASKING
    attacks: tuple[str, ...] = ("relearn",)
    draws: int = 16
    layers: int = 8
    soft_tokens: int = 4
    partitions: int = 1
    rates: tuple[float, ...] = ()


PLANS: dict[Profile, Plan] = {
    "quick": Plan(),
    "standard": Plan(asking=(*ASKING, *MORE), attacks=("relearn", "benign")),
    "full": Plan(
        asking=(*ASKING, *MORE),
        attacks=("relearn", "benign", "relearn_lora", "relearn_sgd"),
        draws=128,
        layers=64,
        soft_tokens=10,
        partitions=3,
        rates=(0.3, 3.0),
    ),
}
