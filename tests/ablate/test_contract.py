"""The contract of every method: it changes exactly its sites, leaves the model as it was, and repeats bit for bit."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from loka import ablate, locate
from loka._util.errors import LokaError, UserError
from loka.ablate import METHODS, Method, RewriteConfig, RoundPlan, SimulatedRelearning, TrainingConfig
from loka.ablate.training.relearning import Simulation
from loka.knowledge import Bounds, Case, Split, score
from loka.model import Edit, EditRecord, Model, Site, slices
from loka.pipeline.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore:.* new answers are written")

RELEARNING = SimulatedRelearning(start=2, every=2, steps=2, radius=0.2)
SHORT = TrainingConfig(steps=6, lr=3e-3)
ROME = RewriteConfig()
MEMIT = dataclasses.replace(METHODS["memit"].config, steps=3, contexts=2, largest_change=1e3)
BRIEF: dict[str, Any] = {"config": MEMIT.to_json(), "weight": 10.0}


def trained(**changes: Any) -> dict[str, Any]:
    return {"config": dataclasses.replace(SHORT, **changes)}


EDITS: dict[str, tuple[str, dict[str, Any]]] = {
    "zero": ("zero", {}),
    "tune": ("tune", trained()),
    "tune, ascent": ("tune", trained(objective="ascent")),
    "tune, push and simulated relearning": ("tune", trained(push_weight=0.5, simulated_relearning=RELEARNING)),
    "task_vector": ("task_vector", {**trained(), "scale": 0.5}),
    "selective_dampening": ("selective_dampening", {"alpha": 1e-9, "strength": 1e-3}),
    "leace": ("leace", {"ridge": 0.1}),
    "rome": ("rome", {"config": RewriteConfig(steps=3, contexts=2, largest_change=1e3)}),
    "memit": ("memit", {"config": MEMIT, "weight": 10.0}),
    "follow_up": ("follow_up", trained(objective="ascent")),
    "follow_up on memit": (
        "follow_up", {**trained(objective="ascent"), "first": "memit", "first_arguments": BRIEF},
    ),
    "follow_up on memit's own": (
        "follow_up",
        {
            **trained(settings={"teacher": "edited"}, simulated_relearning=RELEARNING, mixup_rows=8),
            "first": "memit", "first_arguments": BRIEF, "own_sites": True,
        },
    ),
    "lora": ("lora", {**trained(), "rank": 2}),
    "tune, watched": ("tune", trained(every=3, bounds=Bounds(forget=0.0))),
    "tune, with mixups": ("tune", trained(mixup_rows=40, warm_up=2)),
    "tune, preconditioned": ("tune", trained(precondition=0.1)),
    "tune, for large models": ("tune", trained(checkpointing=True, bfloat16=True)),
    "rounds": ("rounds", {**trained(steps=2, every=25), "plan": RoundPlan(counts=(2, 2, 1))}),
    "reset": ("reset", trained()),
    "reset, no objective": ("reset", trained(objective=None)),
}  # fmt: skip
BIASED = {name for name, method in METHODS.items() if "bias" in method.needs}  # `test_constant.py` has their tests
for new in METHODS.keys() - BIASED - {method for method, _ in EDITS.values()}:
    EDITS[new] = (new, trained() if isinstance(METHODS[new].config, TrainingConfig) else {})
TRAINED = [name for name, (_, arguments) in EDITS.items() if isinstance(arguments.get("config"), TrainingConfig)]
ASKING = [name for name in TRAINED if name != "task_vector"]
SITES = [Site(0, "neuron", 3), Site(1, "neuron", 100), Site(1, "neuron", 7), Site(2, "head", 1), Site(3, "kv", 0)]
OWN = {"leace": SITES[:-1], "rome": [Site(1, "mlp")], "memit": [Site(1, "mlp"), Site(2, "mlp")],
       "lora": [Site(1, "attn"), Site(2, "mlp")], "follow_up on memit": [Site(1, "mlp")]}  # fmt: skip
CHOSEN = {"follow_up on memit's own": [Site(0, "mlp"), Site(1, "mlp")]}  # by the first method, beside the sites


def sites_of(name: str) -> list[Site]:
    return OWN.get(name, SITES)


def make(name: str, model: Model, case: Case, sites: list[Site] | str | None = "its own", **changes: Any) -> Edit:
    """An edit of the table; changes are to its training, but for `progress` and `stop`."""
    method, arguments = EDITS[name]
    callbacks = {key: changes.pop(key) for key in ("progress", "stop") if key in changes}
    if changes:
        arguments = {**arguments, "config": dataclasses.replace(arguments["config"], **changes)}
    where = sites_of(name) if sites == "its own" else sites
    if "stop" in callbacks:
        return METHODS[method].run(model, case, where, **arguments, **callbacks)
    return ablate.perform(method, model, case, where, arguments, **callbacks)


@pytest.fixture(scope="module")
def edits(taught: Model, planted_case: Case) -> Callable[[str], Edit]:
    return cache(lambda name: make(name, taught, planted_case))


@pytest.fixture
def made(planted: Model, edits: Callable[[str], Edit]) -> Callable[[str], Edit]:
    """Each method's edit of the planted model, made once and watched over."""
    return edits


def test_the_table_is_whole() -> None:
    """Every method of the table is tested here or needs a bias, and is public under its name."""
    assert {method for method, _ in EDITS.values()} | BIASED == set(METHODS)
    for name, method in METHODS.items():
        assert method.name == name
        assert name in ablate.__all__


@pytest.mark.parametrize("name", EDITS)
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


@pytest.mark.parametrize("name", EDITS)
def test_the_same_seed_gives_the_same_bits(
    name: str, fresh: Model, planted_case: Case, made: Callable[[str], Edit]
) -> None:
    """Nothing hangs on what a model did before, or on the order of the sites."""
    first = made(name).digest()
    assert make(name, fresh, planted_case, list(reversed(sites_of(name)))).digest() == first
    if name in TRAINED:
        assert make(name, fresh, planted_case, seed=1).digest() != first


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_says_how_it_was_made_and_can_be_made_again(
    name: str, planted: Model, planted_case: Case, made: Callable[[str], Edit]
) -> None:
    edit = made(name)
    method, arguments = EDITS[name]
    assert (edit.record.method, edit.record.case) == (method, "planted")
    sites = sites_of(name)
    assert [Site.parse(s) for s in edit.record.sites or ()] == sorted(sites)
    for key, value in arguments.items():
        recorded = edit.record.arguments[key]
        if isinstance(recorded, dict) and not isinstance(value, dict):
            recorded = type(value).from_json(recorded)
        if key == "config" and name == "task_vector":
            assert (recorded.steps, recorded.lr, recorded.objective) == (value.steps, value.lr, None)
        else:
            assert recorded == (value if key != "first_arguments" else recorded | value)
    assert ablate.rerun_on(planted, planted_case, edit, sites).digest() == edit.digest()
    if any(s.index is None for s in sites):  # a layer's whole MLP: another layer is its control
        others = [Site(s.layer - 1, "mlp") for s in sites]
        assert ablate.rerun_on(planted, planted_case, edit, others).record.arguments == edit.record.arguments
        return
    others = locate.random_sites(planted, sites)
    control = ablate.rerun_on(planted, planted_case, edit, others)
    assert control.record.arguments == edit.record.arguments
    assert [s.name for s in control.slices] == [s.name for s in edit.slices]
    assert control.parameters == edit.parameters
    chosen = {part.name for part in slices(planted, CHOSEN.get(name, []))}
    for mine, theirs in zip(edit.slices, control.slices, strict=True):
        assert mine.name in chosen or not set(mine.index.tolist()) & set(theirs.index.tolist())


@pytest.mark.parametrize("name", EDITS)
def test_no_sites_are_refused(name: str, planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match="sites|at least one site"):
        make(name, planted, planted_case, [])
    with pytest.raises(UserError, match="layers are 0 to 3"):
        make(name, planted, planted_case, [Site(9, "head", 0)])


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("name", TRAINED)
def test_training_that_diverges_says_so_and_leaves_the_model(
    name: str, steps: int, planted: Model, planted_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate is infinite: norms undo the scale of weights, so that some methods survive any finite one."""
    monkeypatch.setattr(TrainingConfig, "rate", lambda config, step: float("inf"))
    words = rf"diverged at step \d of {steps} .*learning rate under \d.* The model is as it was"
    with pytest.raises(LokaError, match=words) as caught:
        make(name, planted, planted_case, steps=steps)
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
        make("tune, push and simulated relearning", planted, planted_case)
    assert len(calls) == 3


@pytest.mark.parametrize("name", ASKING)
def test_an_unknown_objective_is_refused(name: str, planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match="'rmx' is not an objective; choose from undial, ascent"):
        make(name, planted, planted_case, objective="rmx")


def test_an_edit_of_unknown_making_cannot_be_replayed(planted: Model, planted_case: Case) -> None:
    for record in (EditRecord(), EditRecord("by hand")):
        with pytest.raises(UserError, match="cannot be rerun; choose from zero, mean, .*tune, reset"):
            ablate.rerun_on(planted, planted_case, Edit((), (), planted.digest(), record), SITES)


def test_a_method_is_added_by_one_row_of_the_table(
    planted: Model, planted_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name with JSON arguments, in a recipe, as the first method of a follow-up, and again as a control."""

    def halve(model: Model, case: Case, sites: list[Site], config: RewriteConfig = ROME, *, share: float = 0.5) -> Edit:
        where = slices(model, sites)
        values = tuple(share * part.read(model.parameters[part.name]) for part in where)
        names = tuple(map(str, sorted(sites)))
        arguments = {"share": share, "config": config.to_json()}
        return Edit(tuple(where), values, model.digest(), EditRecord("halve", model.name, case.name, names, arguments))

    with pytest.raises(UserError, match="'halve' is not a method; choose from zero"):
        ablate.perform("halve", planted, planted_case, SITES, {})
    monkeypatch.setitem(METHODS, "halve", Method("halve", halve))
    edit = ablate.perform("halve", planted, planted_case, SITES, {"share": 0.25, "config": {"steps": 3}})
    assert edit.record.config == RewriteConfig(steps=3).to_json()
    assert ablate.rerun_on(planted, planted_case, edit, SITES).digest() == edit.digest()
    recipe = Recipe.from_json({"method": "halve", "sites": 5, "arguments": {"share": 0.25}})
    assert recipe.config == RewriteConfig()
    both = ablate.perform("follow_up", planted, planted_case, SITES, {**trained(steps=1), "first": "halve"})
    assert both.record.arguments["first"] == "halve"
    assert ablate.rerun_on(planted, planted_case, both, SITES).digest() == both.digest()


def test_an_argument_that_a_method_does_not_take_is_refused(planted: Model, planted_case: Case) -> None:
    for method, arguments, words in (
        ("zero", {"steps": 3}, "zero has no argument 'steps'; it takes none"),
        ("lora", {"rnk": 3}, "lora has no argument 'rnk'; it takes config, rank, scale"),
        ("tune", {"config": {"lrr": 1}}, "a training config has no 'lrr'; choose from objective, settings, steps, lr"),
        ("lora", {"config": {"every": 3}}, "lora does not use every; leave it out. It uses lr, "),
        ("task_vector", {"config": {"objective": "npo"}}, "task_vector does not use objective; leave it out"),
        ("rounds", {"config": {"every": 0}}, "give every=25, or another number of steps"),
        ("follow_up", {"first": "melt"}, "'melt' is not a method; choose from zero"),
    ):
        with pytest.raises(UserError, match=words):
            ablate.perform(method, planted, planted_case, SITES, arguments)


def test_without_sites_everything_in_the_blocks_is_trained(planted: Model, planted_case: Case) -> None:
    edit = make("tune", planted, planted_case, None)
    assert edit.record.sites is None
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


def test_a_changed_case_gives_another_edit(planted: Model, planted_case: Case) -> None:
    """Caches hang on what a case holds: no training uses the outputs that were recorded for another case."""
    case = planted_case.on(planted)
    other = dataclasses.replace(case, retain=Split(case.retain.working[:4], case.retain.sealed))
    assert other.digest != case.digest
    first, second, again = (make("tune", planted, of).digest() for of in (case, other, case))
    assert first == again != second
