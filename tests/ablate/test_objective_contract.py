"""What every objective of `tune` keeps to on a model that knows planted facts."""

from typing import Any

import pytest
import torch

from loka import ablate, locate, verify
from loka._util.errors import UserError
from loka.ablate import SimulatedRelearning, TrainingConfig
from loka.ablate.objectives import OBJECTIVES, ForgetBatch, objective
from loka.ablate.training.batches import prepare
from loka.knowledge import Case
from loka.model import Edit, Model, Site, sliced, slices

# What the small model needs: it is sure of its facts, so that satimp hardly weighs them; undial and rmu are slow;
# unbounded ascent goes too far, as does npo, which fades late; a refusal has to be in the vocabulary.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "undial": {"steps": 40, "push_weight": 0.3},
    "ascent": {"retain_weight": 8.0},
    "difference": {"steps": 20, "retain_weight": 10.0},
    "npo": {"settings": {"beta": 1.0}},
    "simnpo": {},
    "idk": {"settings": {"answers": ["red bread"]}},
    "wga": {},
    "satimp": {"settings": {"beta2": 0.2}},
    "ceu": {},
    "pdu": {},
    "rmu": {"steps": 40},
    "twin_states": {"steps": 60, "lr": 5e-3, "retain_weight": 2.0},
    "twin_distribution": {"retain_weight": 10.0},
    "alternative": {"steps": 40, "push_weight": 0.3},
    "unseen_loss": {},
}
SITES = [Site(1, "neuron", 3), Site(1, "neuron", 100), Site(2, "head", 1), Site(2, "kv", 0)]


@pytest.fixture(scope="module")
def found(taught: Model, planted_case: Case) -> list[Site]:
    return locate.attribution(taught, planted_case).top(200)


def made(name: str, model: Model, case: Case, sites: list[Site], **changes: Any) -> Edit:
    values = {"objective": name, "steps": 30, "lr": 3e-3, "retain_weight": 5.0, **ARGUMENTS.get(name, {})} | changes
    return ablate.tune(model, case, sites, TrainingConfig(**values))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_forgets_and_most_of_the_rest_stays(
    name: str, planted: Model, planted_case: Case, found: list[Site]
) -> None:
    edit = made(name, planted, planted_case, found)
    with edit.applied(planted):
        recall, rest = verify.recall(planted, planted_case), verify.collateral(planted, planted_case)
    assert recall.details["working"] <= 0.3
    assert rest.controls["same"] >= 0.4  # sealed neighbours, not rehearsed
    assert rest.controls["other"] >= 0.9


def test_the_list_is_whole() -> None:
    assert list(ARGUMENTS) == list(OBJECTIVES)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_is_finite_and_only_the_slices_get_a_gradient(name: str, planted: Model, planted_case: Case) -> None:
    where = slices(planted, SITES)
    goal = objective(name).on(planted, where)
    batches = prepare(planted, planted_case.on(planted), TrainingConfig(), goal)
    for memory in (batches.forget[0], batches.forget[1].rows([5, 2, 7])):
        with sliced(planted, where) as trainable, torch.enable_grad():
            loss = goal(ForgetBatch(planted, memory))
            loss.backward()
            grads = [p.grad for p in trainable.parameters]
        assert loss.ndim == 0
        assert loss.isfinite()
        assert all(g is not None and g.isfinite().all() and g.any() for g in grads)
        assert all(p.grad is None for p in planted.parameters.values())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_composes_with_push_and_simulated_relearning_and_is_made_again(
    name: str, planted: Model, planted_case: Case
) -> None:
    relearning = SimulatedRelearning(start=1, every=2, steps=1, radius=0.2)
    edit = made(name, planted, planted_case, SITES, steps=3, push_weight=0.5, simulated_relearning=relearning)
    assert ablate.rerun_on(planted, planted_case, edit, SITES).digest() == edit.digest()
    assert all(v.isfinite().all() for v in edit.values)


def test_a_setting_changes_the_edit_and_is_kept_with_it(planted: Model, planted_case: Case) -> None:
    plain, set_ = (made("npo", planted, planted_case, SITES, steps=3, settings=s) for s in ({}, {"beta": 2.0}))
    assert plain.digest() != set_.digest()
    assert plain.record.config["settings"] == {}
    assert set_.record.config["settings"] == {"beta": 2.0}
    assert ablate.rerun_on(planted, planted_case, set_, SITES).digest() == set_.digest()


def test_settings_that_cannot_be_are_refused_before_training(planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match="there is no setting 'gamma'"):
        made("npo", planted, planted_case, SITES, settings={"gamma": 1.0})
    for layer in (0, 4):
        with pytest.raises(
            UserError, match=f"after layer {layer} with sites from layer 1 on; give a layer from 1 to 3"
        ):
            made("rmu", planted, planted_case, SITES, settings={"layer": layer})
    with pytest.raises(UserError, match="have no effect; name an objective, or leave them out"):
        ablate.reset(planted, planted_case, SITES, TrainingConfig(objective=None, settings={"beta": 1.0}))
