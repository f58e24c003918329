"""What every ablator keeps to: an edit of exactly the sites, a model left as it was, the same again next time."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from loka import ablate, locate
from loka._util.errors import LokaError, UserError
from loka.ablate.training.relearning import Simulation
from loka.knowledge import Case, score
from loka.model import Edit, Model, Site, slices

Method = Callable[..., Edit]
RELAPSE = {"start": 2, "every": 2, "steps": 2, "radius": 0.2}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "zero": ("zero", {}),
    "tune": ("tune", {"steps": 6, "lr": 3e-3}),
    "tune, ascent": ("tune", {"steps": 6, "lr": 3e-3, "objective": "ascent"}),
    "tune, push and relapse": ("tune", {"steps": 6, "lr": 3e-3, "push": 0.5, "relapse": RELAPSE}),
    "task_vector": ("task_vector", {"steps": 6, "lr": 3e-3, "scale": 0.5}),
    "selective_dampening": ("selective_dampening", {"alpha": 1e-9, "strength": 1e-3}),
    "leace": ("leace", {"ridge": 0.1}),
    "rome": ("rome", {"steps": 3, "contexts": 2}),
    "memit": ("memit", {"steps": 3, "contexts": 2, "weight": 10.0}),
    "follow_up": ("follow_up", {"steps": 6, "lr": 3e-3}),
    "follow_up on memit": (
        "follow_up",
        {"first": "memit", "arguments": {"steps": 3, "contexts": 2, "weight": 10.0}, "steps": 6, "lr": 3e-3},
    ),
    "follow_up on memit's own": (
        "follow_up",
        {
            "first": "memit",
            "arguments": {"steps": 3, "contexts": 2, "weight": 10.0},
            "own": True,
            "objective": "undial",
            "settings": {"teacher": "edited"},
            "steps": 6,
            "lr": 3e-3,
            "states": 1.0,
            "relapse": RELAPSE,
            "between": 8,
        },
    ),
    "lora": ("lora", {"steps": 6, "lr": 3e-3, "rank": 2}),
    "tune, watched": ("tune", {"steps": 6, "lr": 3e-3, "every": 3, "bounds": {"forget": 0.0}}),
    "tune, states held": ("tune", {"steps": 6, "lr": 3e-3, "states": 1.0}),
    "tune, with mixtures": ("tune", {"steps": 6, "lr": 3e-3, "between": 40, "states": 1.0, "warm_up": 2}),
    "tune, whitened": ("tune", {"steps": 6, "lr": 3e-3, "whiten": 0.1}),
    "tune, for large models": ("tune", {"steps": 6, "lr": 3e-3, "checkpointing": True, "bfloat16": True}),
    "rounds": ("rounds", {"steps": 2, "lr": 3e-3, "counts": [2, 2, 1]}),
    "reset": ("reset", {"steps": 6, "lr": 3e-3}),
    "reset, no objective": ("reset", {"steps": 6, "lr": 3e-3, "objective": None}),
}
TRAINED = [name for name, (_, arguments) in METHODS.items() if "lr" in arguments]
ASKING = [name for name in TRAINED if name != "task_vector"]
SITES = [Site(0, "neuron", 3), Site(1, "neuron", 100), Site(1, "neuron", 7), Site(2, "head", 1), Site(3, "kv", 0)]
OWN = {"leace": SITES[:-1], "rome": [Site(1, "mlp")], "memit": [Site(1, "mlp"), Site(2, "mlp")],
       "lora": [Site(1, "attn"), Site(2, "mlp")], "follow_up on memit": [Site(1, "mlp")]}  # fmt: skip
CHOSEN = {"follow_up on memit's own": [Site(0, "mlp"), Site(1, "mlp")]}  # by the first method, beside the sites
BESIDE = {  # no edits of sites
    "METHODS", "Deletion", "Locator", "Interference", "Sisa", "Training", "recovered_sites", "check_interference",
    "rerun_on",
    "retrain", "stating",
}  # fmt: skip
BIASED = {"mean", "resample"}  # the planted model has no biases; test_constant holds these to their own tests


def sites_of(name: str) -> list[Site]:
    return OWN.get(name, SITES)


def make(name: str, model: Model, case: Case, sites: list[Site] | str | None = "its own", **changes: Any) -> Edit:
    method, arguments = METHODS[name]
    return getattr(ablate, method)(model, case, sites_of(name) if sites == "its own" else sites, **arguments | changes)


@pytest.fixture(scope="module")
def edits(taught: Model, planted_case: Case) -> Callable[[str], Edit]:
    return cache(lambda name: make(name, taught, planted_case))


@pytest.fixture
def made(planted: Model, edits: Callable[[str], Edit]) -> Callable[[str], Edit]:
    """Each method's edit of the planted model, made once and watched over."""
    return edits


def test_every_method_is_here() -> None:
    names = {method for method, _ in METHODS.values()} | BIASED
    assert names == set(ablate.METHODS) == set(ablate.__all__) - BESIDE


@pytest.mark.parametrize("name", METHODS)
def test_only_the_sites_differ_and_the_model_is_as_it_was(
    name: str, planted: Model, made: Callable[[str], Edit]
) -> None:
    before = {n: p.clone() for n, p in planted.parameters.items()}
    edit = made(name)
    assert all(torch.equal(p, before[n]) for n, p in planted.parameters.items())
    may = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in before.items()}
    for part in slices(planted, [*sites_of(name), *CHOSEN.get(name, [])]):
        may[part.name].index_fill_(part.dim, part.index.to(planted.device), True)
    with edit.applied(planted):
        changed = {n: p != before[n] for n, p in planted.parameters.items()}
    assert not any((changed[n] & ~may[n]).any() for n in before)
    for part in (*edit.slices, *edit.factors):
        assert changed[part.name].any(), part.name
    assert all(v.isfinite().all() for v in edit.values)
    assert edit.made_for == planted.digest()


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_bits(
    name: str, fresh: Model, planted_case: Case, made: Callable[[str], Edit]
) -> None:
    """Nothing hangs on what a model did before, or on the order of the sites."""
    first = made(name).digest()
    assert make(name, fresh, planted_case, list(reversed(sites_of(name)))).digest() == first
    if name in TRAINED:
        assert make(name, fresh, planted_case, seed=1).digest() != first


@pytest.mark.parametrize("name", METHODS)
def test_an_edit_says_how_it_was_made_and_can_be_made_again(
    name: str, planted: Model, planted_case: Case, made: Callable[[str], Edit]
) -> None:
    edit = made(name)
    assert edit.about["method"] == METHODS[name][0]
    assert edit.about["case"] == "planted"
    sites = sites_of(name)
    assert [Site.parse(s) for s in edit.about["sites"]] == sorted(sites)
    assert METHODS[name][1].items() <= edit.about["arguments"].items()
    assert ablate.rerun_on(planted, planted_case, edit, sites).digest() == edit.digest()
    if any(s.index is None for s in sites):  # a layer's whole MLP: another layer is its control
        others = [Site(s.layer - 1, "mlp") for s in sites]
        assert ablate.rerun_on(planted, planted_case, edit, others).about["arguments"] == edit.about["arguments"]
        return
    others = locate.random_sites(planted, sites)
    control = ablate.rerun_on(planted, planted_case, edit, others)
    assert control.about["arguments"] == edit.about["arguments"]
    assert [s.name for s in control.slices] == [s.name for s in edit.slices]
    assert control.parameters == edit.parameters
    chosen = {part.name for part in slices(planted, CHOSEN.get(name, []))}
    for mine, theirs in zip(edit.slices, control.slices, strict=True):
        assert mine.name in chosen or not set(mine.index.tolist()) & set(theirs.index.tolist())


@pytest.mark.parametrize("name", METHODS)
def test_no_sites_are_refused(name: str, planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match="sites|at least one site"):
        make(name, planted, planted_case, [])
    with pytest.raises(UserError, match="layers are 0 to 3"):
        make(name, planted, planted_case, [Site(9, "head", 0)])


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("name", TRAINED)
def test_training_that_diverges_says_so_and_leaves_the_model(
    name: str, steps: int, planted: Model, planted_case: Case
) -> None:
    words = rf"diverged at step \d of {steps} .*learning rate under inf.* The model is as it was"
    with pytest.raises(LokaError, match=words) as caught:
        make(name, planted, planted_case, lr=float("inf"), steps=steps)
    assert caught.value.exit_status == 1


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_that_is_stopped_leaves_the_model(name: str, planted: Model, planted_case: Case) -> None:
    def stop(done: int, total: int) -> None:
        assert total >= 6  # with the facts of a first edit
        if done == total - 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(name, planted, planted_case, progress=stop)


@pytest.mark.parametrize("name", ["tune", "reset", "lora"])
def test_training_ends_when_it_is_told_to(name: str, planted: Model, planted_case: Case) -> None:
    """The edit says what the model said when `stop` was true, and took no step more."""
    facts = planted_case.on(planted).forget.working

    def says() -> torch.Tensor:
        return score(planted, [f.prompt for f in facts], [f.answer for f in facts]).logprob

    said: list[torch.Tensor] = []

    def stop(step: int) -> bool:
        said.append(says())
        return step == 3

    edit = make(name, planted, planted_case, lr=3e-2, stop=stop)
    assert len(said) == 3
    with edit.applied(planted):
        torch.testing.assert_close(says(), said[2])
    assert (said[2] - said[1]).abs().max() > 1e-3


def test_stopped_while_relearning_is_simulated_it_leaves_the_model(
    planted: Model, planted_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    relearn, calls = Simulation._relearn, []

    def stopped(self: Simulation, rows: list[int]) -> None:
        relearn(self, rows)
        calls.append(rows)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Simulation, "_relearn", stopped)
    with pytest.raises(KeyboardInterrupt):
        make("tune, push and relapse", planted, planted_case)
    assert len(calls) == 3


@pytest.mark.parametrize("name", ASKING)
def test_an_unknown_objective_is_refused(name: str, planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match="'rmx' is no objective; choose one of undial, ascent"):
        make(name, planted, planted_case, objective="rmx")


def test_an_edit_of_unknown_making_cannot_be_replayed(planted: Model, planted_case: Case) -> None:
    for about in ({}, {"method": "by hand"}):
        with pytest.raises(UserError, match="cannot be made again; known are zero, mean, .*tune, reset"):
            ablate.rerun_on(planted, planted_case, Edit((), (), planted.digest(), about), SITES)


def test_without_sites_everything_in_the_blocks_is_trained(planted: Model, planted_case: Case) -> None:
    edit = make("tune", planted, planted_case, None)
    assert edit.about["sites"] is None
    blocks = {n: p for n, p in planted.parameters.items() if ".layers." in n and p.ndim == 2}
    changed = {n for n, norm in edit.summary(planted).norms.items() if norm > 0}
    assert changed >= set(blocks)
    assert edit.parameters >= sum(p.numel() for p in blocks.values())


def test_an_edit_on_an_edit(planted: Model, planted_case: Case) -> None:
    """Edits compose: the second is made on the first, and both come off."""
    known = planted_case.on(planted)
    first = make("zero", planted, known)
    with first.applied(planted):
        second = make("tune", planted, known, [Site(0, "neuron", 50)])
        assert second.made_for == planted.digest() != first.made_for
    alone = make("tune", planted, known, [Site(0, "neuron", 50)])
    assert alone.digest() != second.digest()
    assert alone.made_for == planted.digest()
