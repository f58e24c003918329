"""What every locator holds to, on every architecture. A new one is a line of RAW."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from loka import locate
from loka.knowledge import Case
from loka.locate.atp_star import atp_star_scores
from loka.locate.attribution import attribution_scores
from loka.locate.counterfactual import Pairs, pairs
from loka.locate.direct_logit import direct_logit_scores
from loka.locate.integrated_gradients import integrated_gradients_scores
from loka.locate.knowledge_neurons import answer_probability_scores
from loka.locate.taylor import taylor_scores
from loka.model import Model

RAW = {
    "attribution": attribution_scores,
    "integrated_gradients": integrated_gradients_scores,
    "atp_star": atp_star_scores,
    "direct_logit": partial(direct_logit_scores, parts=("neuron", "head", "attn", "mlp")),
    "knowledge_neurons": partial(answer_probability_scores, steps=3),
    "taylor": taylor_scores,
}


def level(model: Model, case: Case, n: int = 3) -> Pairs:
    """Pairs of prompts of equal length with answers of one token."""
    short = [f for f in case.forget.working if len(f.answer.split()) == 1 and f.prompt.startswith("the capital")]
    found = pairs(model, case, short[:n])
    assert found.clean.mask.all()
    assert found.corrupted.mask.all()
    return found


@pytest.mark.parametrize("name", RAW)
def test_raw_scores(tiny: Callable[[str], Model], planted_case: Case, architecture: str, name: str) -> None:
    model = tiny(architecture)
    both = level(model, planted_case.whole())
    before = model.digest()
    scores, effect = RAW[name](model, both)
    assert effect.shape == (3,)
    assert effect.dtype == np.float64
    assert np.isfinite(effect).all()
    assert scores
    for part, values in scores.items():
        assert values.shape == (3, model.n_layers, model.units(part)), part
        assert values.dtype == np.float64
        assert np.isfinite(values).all(), part
        assert (np.abs(values) > 0).mean() > 0.5, part
    assert model.digest() == before
    assert not any(p.requires_grad or p.grad is not None for p in model.hf.parameters())
    again, _ = RAW[name](model, level(model, planted_case.whole(), n=2))  # a row does not depend on the others
    for part, values in again.items():
        np.testing.assert_allclose(values, scores[part][:2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", RAW)
def test_a_localization(planted: Model, planted_case: Case, name: str) -> None:
    seen: list[tuple[int, int]] = []
    found = getattr(locate, name)(planted, planted_case, progress=lambda *step: seen.append(step))
    assert found.record.method == name
    assert seen[-1][0] == seen[-1][1]
    frame = found.to_frame()
    assert frame["score"].notna().all()
    for part in found.parts:
        assert len(frame[frame["part"] == part]) == planted.n_layers * planted.units(part)
        best = found.top(3, part=part)
        assert found.grid(part)[best[0].layer, best[0].index] == found.grid(part).max()
    batched = getattr(locate, name)(planted, planted_case, rows=5).to_frame()
    np.testing.assert_allclose(batched["score"], frame["score"], atol=2e-4)
