"""Rounds of locating what relearning brings back, resetting it, and repairing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loka import ablate, locate, verify
from loka._util.errors import UserError
from loka.ablate import RoundPlan, TrainingConfig
from loka.knowledge import Bounds, Case, Metrics, hold_out, recalled
from loka.model import Edit, Model, Site

LAX = Bounds(forget=1.0, retain_drop=1.0, perplexity_rise=1e9)
CONFIG = TrainingConfig(steps=60, lr=5e-3, retain_weight=3.0, push_weight=0.3, every=20)
PLAN = RoundPlan(counts=(80, 40))


def located(model: Model, case: Case) -> list[Site]:
    found = locate.attribution(model, case, parts=("neuron",))
    return found.top(len(found.frame))


@pytest.fixture(scope="module")
def best(taught: Model, planted_case: Case) -> list[Site]:
    return locate.attribution(taught, planted_case).top(80)


@pytest.fixture(scope="module")
def made(taught: Model, planted_case: Case, best: list[Site], tmp_path_factory: pytest.TempPathFactory) -> Edit:
    folder = tmp_path_factory.mktemp("rounds")
    edit = ablate.rounds(taught, planted_case, best, CONFIG, locator=located, plan=PLAN, folder=folder)
    assert sorted(p.name for p in folder.iterdir()) == ["round-1.safetensors", "round-2.safetensors"]
    return edit


def test_it_forgets_and_says_how_each_round_ended(planted: Model, planted_case: Case, made: Edit) -> None:
    history = made.record.rounds
    assert [r.sites for r in history] == [80, 40]
    assert len(made.record.sites) == len(set(made.record.sites)) == 120
    with made.applied(planted):
        recall, rest = verify.recall(planted, planted_case), verify.collateral(planted, planted_case)
        stands = hold_out(planted, planted_case).measure(planted)
    assert stands.forget == history[-1].forget
    assert stands.retain == history[-1].retain
    assert recall.details["working"] <= 0.2
    assert rest.controls["other"] >= 0.8


def test_less_comes_back_than_after_a_shallow_edit(planted: Model, planted_case: Case, made: Edit) -> None:
    last = [Site(3, part) for part in ("attn", "mlp")]
    shallow = ablate.tune(planted, planted_case, last, TrainingConfig(steps=40, lr=2e-3, push_weight=0.3))
    back = []
    for edit in (made, shallow):
        with edit.applied(planted):
            attack = verify.Budget(8, 1e-3)
            back.append(verify.relearn(planted, planted_case, budget=attack, groups=("forget",)).value)
    assert back[0] < back[1]


def test_the_locator_sees_relearned_weights_and_the_half_that_was_not_taught(
    planted: Model, planted_case: Case, best: list[Site]
) -> None:
    calls: list[tuple[list[str], str, float]] = []

    def spy(model: Model, case: Case) -> list[Site]:
        facts = case.forget.working
        others = [f for f in planted_case.whole().forget.working if f.subject not in {g.subject for g in facts}]
        calls.append(([f.subject for f in facts], model.digest(), sum(recalled(model, others)) / len(others)))
        return [*best, *[Site(0, "neuron", i) for i in range(40)]]

    plan = RoundPlan(counts=(20, 10), relearning_steps=8, relearning_radius=0.3)
    short = replace(CONFIG, steps=20)
    edit = ablate.rounds(planted, planted_case, best[:20], short, locator=spy, plan=plan)
    (one, first, back), (two, second, again) = calls
    assert sorted(one + two) == sorted(f.subject for f in planted_case.whole().forget.working)
    assert len({first, second, planted.digest()}) == 3
    history = edit.record.rounds
    assert min(back, again) > history[0].forget + 0.3  # it was taught the others again
    assert set(map(str, best[20:30])) < set(edit.record.sites)  # the best that had not been reset


def test_killed_between_rounds_it_goes_on_to_the_same_bits(
    planted: Model, planted_case: Case, made: Edit, best: list[Site], tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    calls: list[int] = []

    def kill(done: int, total: int) -> None:
        calls.append(done)
        if done == 70:
            raise Killed

    def start(progress: Any = None) -> Edit:
        return ablate.rounds(
            planted, planted_case, best, CONFIG, locator=located, plan=PLAN, folder=tmp_path, progress=progress
        )

    with pytest.raises(Killed):
        start(kill)
    assert [p.name for p in tmp_path.iterdir()] == ["round-1.safetensors"]
    resumed: list[int] = []
    again = start(lambda done, total: resumed.append(done))
    assert again.digest() == made.digest()
    assert again.record == made.record
    assert min(resumed) == 61
    resumed.clear()
    assert start(lambda done, total: resumed.append(done)).digest() == made.digest()
    assert not resumed
    with pytest.raises(UserError, match="holds a round of another model, case or recipe; name another folder"):
        ablate.rounds(
            planted, planted_case, best, replace(CONFIG, lr=1e-3), locator=located, plan=PLAN, folder=tmp_path
        )


def test_a_round_ends_inside_the_bounds(planted: Model, planted_case: Case, best: list[Site]) -> None:
    edit = ablate.rounds(planted, planted_case, best, replace(CONFIG, bounds=LAX), plan=RoundPlan((40, 40)))
    assert [(r.steps, r.met) for r in edit.record.rounds] == [(20, True), (20, True)]


def test_its_control_resets_as_many_random_sites_with_the_same_steps(
    planted: Model, planted_case: Case, made: Edit
) -> None:
    own = [Site.parse(s) for s in made.record.sites]
    control = ablate.rerun_on(planted, planted_case, made, locate.random_sites(planted, own))
    assert control.record.arguments == made.record.arguments
    assert [r.sites for r in control.record.rounds] == [80, 40]
    assert control.parameters == made.parameters
    assert not set(control.record.sites) & set(made.record.sites)


def test_a_locator_that_finds_nothing_more_ends_it(planted: Model, planted_case: Case, best: list[Site]) -> None:
    edit = ablate.rounds(planted, planted_case, best, replace(CONFIG, steps=5), locator=lambda m, c: best, plan=PLAN)
    assert [r.sites for r in edit.record.rounds] == [80]


def test_what_cannot_be_is_refused(planted: Model, planted_case: Case, best: list[Site]) -> None:
    for counts, words in (
        ((80, 40), "120 sites are to be reset in 2 rounds, but 80 were given; give a locator"),
        ((80, 0), "must give every round at least one site"),
    ):
        with pytest.raises(UserError, match=words):
            ablate.rounds(planted, planted_case, best, CONFIG, plan=RoundPlan(counts))
    for arguments, words in (
        ({"config": {"objective": "rmx"}}, "'rmx' is not an objective"),
        ({"plan": {"count": [80]}}, "a plan of rounds has no 'count'; choose from counts, relearning_steps"),
    ):
        with pytest.raises(UserError, match=words):
            ablate.perform("rounds", planted, planted_case, best, arguments)


def test_what_is_held_out_is_in_no_lesson(planted: Model, planted_case: Case) -> None:
    held_out, whole = hold_out(planted, planted_case), planted_case.on(planted)
    assert set(held_out.facts) | set(held_out.case.retain.working) == set(whole.retain.working)
    assert not set(held_out.facts) & set(held_out.case.retain.working)
    assert {f.relation for f in held_out.facts} == {"capital", "symbol"}
    assert not set(held_out.texts) & set(held_out.case.passages or ())
    assert held_out.case.retain.sealed == whole.retain.sealed
    assert held_out.measure(planted) == Metrics(1.0, 1.0, pytest.approx(1.0, abs=3.0))
    before, bounds = Metrics(1.0, 0.9, 10.0), Bounds()
    assert bounds.met(Metrics(0.05, 0.88, 10.1), before)
    for worse in (Metrics(0.06, 0.9, 10.0), Metrics(0.0, 0.87, 10.0), Metrics(0.0, 0.9, 10.2)):
        assert not bounds.met(worse, before)


def test_follow_up_zeroes_then_ascends(planted: Model, planted_case: Case, best: list[Site]) -> None:
    """More is forgotten than by zeroing, and the retain term is measured from the original."""
    zero = ablate.zero(planted, planted_case, best)
    ascend = TrainingConfig("ascent", steps=60, lr=5e-3, retain_weight=5.0, push_weight=0.5)
    both = ablate.follow_up(planted, planted_case, best, ascend)
    shares = []
    for edit in (zero, both):
        with edit.applied(planted):
            shares.append([sum(recalled(planted, f)) / len(f) for f in (planted_case.whole().forget.working,
                           planted_case.whole().retain.working)])  # fmt: skip
    (forget, _), (forget_both, retain_both) = shares
    assert forget > 0.5 > 0.2 >= forget_both
    assert retain_both >= 0.8
    assert both.record.arguments["first"] == "zero"
    with pytest.raises(UserError, match="'melt' is not a method; choose from zero"):
        ablate.perform("follow_up", planted, planted_case, best, {"first": "melt"})
    given = ablate.follow_up(planted, planted_case, best, ascend, first=zero)
    assert given.digest() == both.digest()
    assert given.record.arguments["first"] == zero.digest()
    assert given.record.sites == ()  # no control of it can be made
