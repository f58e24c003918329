"""Taylor importance is the slope of scaling a site down, and spares sites that any fact uses, of either sign."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from loka import locate
from loka._util.errors import UserError
from loka.knowledge import Case
from loka.locate.counterfactual import log_odds, pairs
from loka.locate.taylor import taylor_scores
from loka.model import Model
from loka.model.run.hooks import point, run

SMALL = 3e-3


def test_a_score_is_the_slope_of_scaling_down(tiny: Callable[[str], Model], planted_case: Case) -> None:
    model = tiny("GPT2LMHeadModel")
    both = pairs(model, planted_case.whole(), planted_case.whole().forget.working[:6])
    scores, scale = taylor_scores(model, both)
    assert (scale == 1).all()

    def dimmed(part: str, layer: int, unit: int, by: float) -> np.ndarray:
        def hook(value: torch.Tensor) -> torch.Tensor:
            value = value.clone()
            value[:, :, unit] *= 1 - by
            return value

        with torch.no_grad():
            found = run(model, both.clean, [(point(part, layer), hook)])
        return log_odds(found, both).double().numpy()

    for part, values in scores.items():
        for at in np.argsort(-np.abs(values).mean(0), axis=None)[:4]:
            layer, unit = np.unravel_index(at, values[0].shape)
            some = part, int(layer), int(unit)
            wanted = (dimmed(*some, -SMALL) - dimmed(*some, SMALL)) / (2 * SMALL)
            assert np.abs(wanted).max() > 1e-3
            np.testing.assert_allclose(values[:, layer, unit], wanted, rtol=1e-3, atol=1e-7)


def test_the_contrast_subtracts_the_larger_harm(planted: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)
    kept = known.retain.working
    same, other = ([f for f in kept if (f.relation in known.forgotten_relations) is near] for near in (True, False))
    forget, near, far = (
        taylor_scores(planted, pairs(planted, known, facts))[0]["neuron"]
        for facts in (known.forget.working, same, other)
    )
    harm = np.maximum(near.clip(0).mean(0), far.clip(0).mean(0))
    assert (near.clip(0).mean(0) > far.clip(0).mean(0)).any()
    assert (near.clip(0).mean(0) < far.clip(0).mean(0)).any()
    found = locate.taylor(planted, planted_case, parts=("neuron",), spare=2)
    np.testing.assert_allclose(found.grid("neuron"), forget.mean(0) - 2 * harm, atol=1e-5)
    np.testing.assert_allclose(found.grid("neuron", "forget"), forget.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.grid("neuron", "retain"), 2 * harm, atol=1e-5)
    assert found.record.settings["spare"] == 2
    alone = locate.taylor(planted, planted_case, parts=("neuron",), spare=0)
    np.testing.assert_allclose(alone.grid("neuron"), forget.mean(0), atol=1e-5)


def test_a_negative_weight_is_refused(planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match="spare=-1"):
        locate.taylor(planted, planted_case, spare=-1)
