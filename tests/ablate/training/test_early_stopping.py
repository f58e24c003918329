"""Early stopping: the best state by the held-out part remains, and a hopeless training ends."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from loka import ablate, locate
from loka._util.errors import LokaError
from loka.ablate import RoundPlan, TrainingConfig
from loka.ablate.training import early_stopping, loop
from loka.knowledge import Bounds, Case, Metrics, hold_out
from loka.model import Edit, Model, Site

LAX = Bounds(forget=1.0, retain_drop=1.0, perplexity_rise=1e9)
CONFIG = TrainingConfig(steps=40, lr=3e-3, push_weight=0.3, retain_weight=5.0, every=10)
KEPT = "The edit holds the best measured state, that of step"


@pytest.fixture(scope="module")
def best(taught: Model, planted_case: Case) -> list[Site]:
    return locate.attribution(taught, planted_case, parts=("neuron",)).top(60)


def metrics(model: Model, case: Case, edit: Edit) -> Metrics:
    with edit.applied(model):
        return hold_out(model, case).measure(model)


def test_the_distance_to_the_bounds_counts_what_is_outside_of_them() -> None:
    bounds, before = Bounds(forget=0.1, retain_drop=0.1, perplexity_rise=0.5), Metrics(1.0, 0.9, 10.0)
    assert bounds.distance(Metrics(0.1, 0.8, 15.0), before) == 0.0
    assert bounds.distance(Metrics(0.3, 0.6, 20.0), before) == pytest.approx(0.2 + 0.2 + 0.5)
    assert bounds.collateral(Metrics(0.3, 0.6, 20.0), before) == pytest.approx(0.2 + 0.5)
    assert not bounds.far(Metrics(1.0, 0.6, 20.0), before)
    assert bounds.far(Metrics(1.0, 0.3, 22.0), before)
    for broken in (Metrics(0.0, 0.0, math.nan), Metrics(math.nan, 0.9, 10.0)):
        assert not bounds.met(broken, before)
    assert bounds.far(Metrics(0.0, 0.9, math.nan), before)


def test_what_is_kept_is_the_best_state_that_was_measured(
    planted: Model, planted_case: Case, best: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Metrics] = []
    measure = early_stopping.HeldOut.measure
    monkeypatch.setattr(early_stopping.HeldOut, "measure", lambda self, m: seen.append(measure(self, m)) or seen[-1])
    edit = ablate.tune(planted, planted_case, best, replace(CONFIG, bounds=Bounds(retain_drop=0.0, forget=0.0)))
    record = edit.record.training
    assert record is not None
    start, *later = seen
    limits = Bounds(forget=0.0, retain_drop=0.0)
    distances = [limits.distance(now, start) for now in later]
    assert record.best_step == 10 * (1 + distances.index(min(distances)))
    assert (record.steps, record.ended) in [(10 * len(later), "steps"), (10 * len(later), "bounds")]
    assert metrics(planted, planted_case, edit) == later[distances.index(min(distances))]
    assert record.forget < 0.5 < start.forget
    assert ablate.rerun_on(planted, planted_case, edit, best).digest() == edit.digest()


def test_inside_the_bounds_it_ends(planted: Model, planted_case: Case, best: list[Site]) -> None:
    for method in (ablate.tune, ablate.reset):
        record = method(planted, planted_case, best, replace(CONFIG, bounds=LAX)).record.training
        assert (record.steps, record.best_step, record.ended, record.met) == (10, 10, "bounds", True)


def test_what_wrecks_the_model_is_stopped_and_says_so(planted: Model, planted_case: Case, best: list[Site]) -> None:
    wild = replace(CONFIG, lr=1.0, every=2, retain_weight=0.0, neutral_weight=0.0)
    with pytest.warns(UserWarning, match=f"the collateral was far outside the bounds and did not improve. {KEPT}"):
        edit = ablate.tune(planted, planted_case, best, wild)
    record = edit.record.training
    assert record is not None
    assert record.ended == "collateral"
    assert record.far
    assert record.best_step < record.steps < 40
    assert metrics(planted, planted_case, edit).perplexity == record.perplexity


@pytest.mark.parametrize("method", ["tune", "rounds"])
def test_of_a_training_that_diverges_the_last_good_state_is_kept(
    method: str, planted: Model, planted_case: Case, best: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From step 25 on the loss is NaN: the state that was measured after 10 or 20 steps remains."""
    calls, divergence = [], loop.divergence

    def breaks(*given: Any) -> torch.Tensor:
        calls.append(given)
        return divergence(*given) * (math.nan if len(calls) > 50 else 1.0)

    monkeypatch.setattr(loop, "divergence", breaks)
    more = {"plan": RoundPlan((60,))} if method == "rounds" else {}
    with pytest.warns(UserWarning, match=rf"was stopped after 25 steps: the training diverged\. {KEPT} [12]0\."):
        edit = getattr(ablate, method)(planted, planted_case, best, CONFIG, **more)
    record = edit.record.training if method == "tune" else edit.record.rounds[0]
    assert record is not None
    assert (record.steps, record.ended) == (25, "diverged")
    now = metrics(planted, planted_case, edit)
    assert (now.forget, now.retain, now.perplexity) == (record.forget, record.retain, record.perplexity)
    with pytest.raises(LokaError, match=r"diverged at step 1 of 40 \(retain loss nan\)"):
        getattr(ablate, method)(planted, planted_case, best, CONFIG, **more)


def test_rounds_end_before_one_that_wrecks_the_model(
    planted: Model, planted_case: Case, best: list[Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, wrecked = early_stopping.HeldOut.measure, []

    def wrecks(held_out: Any, model: Model) -> Metrics:
        now = measure(held_out, model)
        return Metrics(now.forget, 0.0, 4 * now.perplexity) if wrecked else now

    def step(done: int, total: int) -> None:
        assert total == 30
        if done > 10:
            wrecked.append(done)

    monkeypatch.setattr(early_stopping.HeldOut, "measure", wrecks)
    config, plan = replace(CONFIG, steps=10), RoundPlan((20, 20, 20))
    words = "round 2 of 3 left the collateral far outside the bounds .*so no further .*; this is the edit of round 1"
    with pytest.warns(UserWarning, match=words):
        edit = ablate.rounds(planted, planted_case, best, config, plan=plan, folder=tmp_path, progress=step)
    assert [r.sites for r in edit.record.rounds] == [20]
    assert max(wrecked) == 20
    assert sorted(p.name for p in tmp_path.iterdir()) == ["round-1.safetensors", "round-2.safetensors"]
    wrecked.clear()
    with pytest.warns(UserWarning, match=words):
        again = ablate.rounds(planted, planted_case, best, config, plan=plan, folder=tmp_path, progress=step)
    assert not wrecked  # nothing was trained
    assert again.digest() == edit.digest()
    assert again.record == edit.record


def test_rounds_keep_the_finished_ones_where_the_next_diverges(
    planted: Model, planted_case: Case, best: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    divergence, broken = loop.divergence, []
    monkeypatch.setattr(loop, "divergence", lambda *given: divergence(*given) * (math.nan if broken else 1.0))
    config, plan = replace(CONFIG, steps=5), RoundPlan((20, 20))
    with pytest.warns(UserWarning, match="round 2 of 2 is missing: training diverged at step 1 of 5"):
        edit = ablate.rounds(
            planted,
            planted_case,
            best,
            config,
            plan=plan,
            progress=lambda done, _: broken.append(done) if done == 5 else None,
        )
    assert [r.sites for r in edit.record.rounds] == [20]
