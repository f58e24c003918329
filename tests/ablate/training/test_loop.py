"""The learning rate over the steps."""

import math

import pytest

from loka.ablate import TrainingConfig


@pytest.mark.parametrize("warm_up", [0, 1, 4])
def test_the_rate_rises_to_where_the_cosine_is_and_falls_with_it(warm_up: int) -> None:
    rates = [TrainingConfig(steps=12, lr=2.0, warm_up=warm_up).rate(step) for step in range(12)]
    cosine = [1 + math.cos(math.pi * step / 12) for step in range(12)]
    shares = [rate / of for rate, of in zip(rates, cosine, strict=True)]
    assert shares == pytest.approx([min(1.0, (step + 1) / max(warm_up, 1)) for step in range(12)])
