"""Edits of a model that knows planted facts: they forget those, keep the others, and are compared with controls."""

import pytest
import torch

from loka import ablate, locate, verify
from loka.ablate import SimulatedRelearning, TrainingConfig
from loka.knowledge import Case
from loka.locate import Localization
from loka.model import Edit, Model


@pytest.fixture(scope="module")
def found(taught: Model, planted_case: Case) -> Localization:
    return locate.attribution(taught, planted_case)


@pytest.fixture(scope="module")
def tuned(taught: Model, planted_case: Case, found: Localization) -> Edit:
    return ablate.tune(
        taught, planted_case, found.top(200), TrainingConfig(steps=40, lr=3e-3, push_weight=0.3, retain_weight=5.0)
    )


def measure(model: Model, case: Case) -> dict[str, float]:
    recall, rest = verify.recall(model, case), verify.collateral(model, case)
    assert recall.value is not None
    return {
        "working": recall.details["working"],
        "sealed": recall.value,
        **rest.controls,
        "perplexity": rest.details["perplexity"],
    }


def test_before_it_the_model_knows_everything(planted: Model, planted_case: Case) -> None:
    assert measure(planted, planted_case).items() >= {"working": 1.0, "sealed": 1.0, "same": 1.0, "other": 1.0}.items()


def test_tune_forgets_what_it_is_asked_to_and_keeps_the_rest(planted: Model, planted_case: Case, tuned: Edit) -> None:
    before = measure(planted, planted_case)
    with tuned.applied(planted):
        after = measure(planted, planted_case)
    assert after["working"] <= 0.15
    assert after["sealed"] <= 0.25  # templates that the edit never saw
    assert after["same"] >= 0.6
    assert after["other"] >= 0.9
    assert after["perplexity"] <= 1.1 * before["perplexity"]
    assert measure(planted, planted_case) == before


def test_cutting_located_neurons_costs_more_than_cutting_random_ones(
    planted: Model, planted_case: Case, found: Localization
) -> None:
    best = found.top(60, by="forget")

    def left(edit: Edit) -> float:
        with edit.applied(planted):
            return verify.recall(planted, planted_case).details["log_odds"]

    edit = ablate.zero(planted, planted_case, best)
    random = [
        left(ablate.rerun_on(planted, planted_case, edit, locate.random_sites(planted, best, seed=s))) for s in range(4)
    ]
    assert left(edit) < min(random) - 0.1


def test_random_sites_of_the_same_size_are_tuned_alike(
    planted: Model, planted_case: Case, found: Localization, tuned: Edit
) -> None:
    """The control shows how much of the forgetting any sites would give: at this size, all of it."""
    control = ablate.rerun_on(planted, planted_case, tuned, locate.random_sites(planted, found.top(200)))
    assert control.parameters == tuned.parameters
    with control.applied(planted):
        after = measure(planted, planted_case)
    assert after["sealed"] <= 0.5
    assert after["other"] >= 0.8


def test_ascent_forgets_too(planted: Model, planted_case: Case, found: Localization) -> None:
    edit = ablate.tune(
        planted, planted_case, found.top(200), TrainingConfig(objective="ascent", steps=40, lr=3e-3, retain_weight=5.0)
    )
    with edit.applied(planted):
        after = measure(planted, planted_case)
    assert after["working"] <= 0.15
    assert after["other"] >= 0.8


def test_reset_leaves_nothing_of_the_old_slices_and_repairs(
    planted: Model, planted_case: Case, found: Localization
) -> None:
    sites = found.top(300)
    raw = ablate.reset(planted, planted_case, sites, TrainingConfig(objective=None, steps=0))
    repaired = ablate.reset(planted, planted_case, sites, TrainingConfig(objective=None, steps=40, lr=1e-2))
    for where, values in zip(raw.slices, raw.values, strict=True):
        if where.dim == 1:
            assert not values.any()
        else:
            old = where.read(planted.parameters[where.name])
            assert abs(float((old * values).sum() / old.norm() / values.norm())) < 0.2
            assert float(values.std() / planted.parameters[where.name].std()) == pytest.approx(1, rel=0.15)
    memory = verify.neutral_outputs(planted, planted_case)
    with raw.applied(planted):
        broken = verify.collateral(planted, planted_case, before=memory)
    with repaired.applied(planted):
        fixed = verify.collateral(planted, planted_case, before=memory)
    assert fixed.details["kl"] < 0.7 * broken.details["kl"]


def test_simulated_relearning_holds_better_against_relearning(
    planted: Model, planted_case: Case, tuned: Edit, found: Localization
) -> None:
    relearning = SimulatedRelearning(start=6, every=4, steps=2, radius=0.3)
    config = TrainingConfig(steps=40, lr=3e-3, push_weight=0.3, retain_weight=5.0, simulated_relearning=relearning)
    hard = ablate.tune(planted, planted_case, found.top(200), config)
    back = []
    for edit in (tuned, hard):
        with edit.applied(planted):
            attack = verify.Budget(8, 1e-3)
            back.append(verify.relearn(planted, planted_case, budget=attack, groups=("forget",)).value)
    assert back[1] < back[0]


def test_a_model_in_bfloat16_forgets_too(fresh: Model, planted_case: Case, found: Localization) -> None:
    known = planted_case.on(fresh)
    fresh.hf.to(torch.bfloat16)
    edit = ablate.tune(
        fresh, known, found.top(200), TrainingConfig(steps=40, lr=3e-3, push_weight=0.3, retain_weight=5.0)
    )
    assert {v.dtype for v in edit.values} == {torch.bfloat16}
    before = measure(fresh, known)
    with edit.applied(fresh):
        after = measure(fresh, known)
    assert before["working"] >= 0.9
    assert after["working"] <= 0.15
    assert after["same"] >= 0.6
    assert after["other"] >= 0.9
