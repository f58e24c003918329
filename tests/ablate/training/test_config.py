"""A training's configuration refuses what no training can use."""

import math
from collections.abc import Callable

import pytest

from loka import UserError
from loka.ablate import RewriteConfig, RoundPlan, SimulatedRelearning, TrainingConfig
from loka.knowledge import Bounds
from loka.pipeline.teaching import Teaching
from loka.verify import Budget


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": -1}, {"steps": 1.5}, {"steps": "40"}, {"steps": True}, {"lr": math.nan}, {"lr": math.inf},
        {"lr": None},
        {"retain_rows": 0}, {"retain_rows": 2.5}, {"every": math.nan}, {"seed": "a"}, {"bfloat16": "no"}, {"bounds": 3},
        {"settings": [1]}, {"simulated_relearning": {"start": 1}}, {"precondition": "x"}, {"retain_weight": math.inf},
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_by_name(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(UserError, match=name):
        TrainingConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: RewriteConfig(lr=math.inf), lambda: SimulatedRelearning(every=1.5), lambda: Bounds(forget=math.nan),  # type: ignore[arg-type]
        lambda: Teaching(steps=-1), lambda: Teaching(lr=math.nan), lambda: Budget(-1), lambda: Budget(8, math.nan),
        lambda: RoundPlan(counts=(3, 0)), lambda: RoundPlan(relearning_radius=math.nan),
    ],
)  # fmt: skip
def test_other_configurations_refuse_alike(make: Callable[[], object]) -> None:
    with pytest.raises(UserError):
        make()
