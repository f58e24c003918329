"""The audit on models whose truth is known: retrained, hidden in six ways, untouched, wrecked, never taught.

`bench/_lineup` builds the models, and `bench/lineup.py` audits more kinds with the profile `standard` over several
seeds. Here the hidden models meet the checks of `quick` and those made for their kind, and the untouched model meets
`quick` alone, to save minutes.
"""

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from loka import audit
from loka.knowledge import Case
from loka.model import Model
from loka.verify import Verdict, by_role

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parents[2]))
    truth = importlib.import_module("bench._lineup")
World = truth.World
GATED = [check for check in truth.CHECKS if check.name in ("recall", "relearn", "collateral")]  # what gates need


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def original(world: World) -> Model:
    return truth.teach(world)


@pytest.fixture(scope="session")
def retrained(world: World) -> Model:
    return truth.teach(world, world.forget_subjects)


@pytest.fixture(scope="session")
def known(world: World, original: Model, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return world.case(tmp_path_factory.mktemp("known_truth"), world.forget_subjects).on(original)


@pytest.fixture(scope="session")
def first(original: Model, retrained: Model, known: Case) -> tuple[Verdict, truth.Controls]:
    """The retrained model's verdict, and the readings of the original and of the shallow sibling."""
    controls = truth.Controls()
    return truth.judge(original, retrained, known, controls), controls


@pytest.fixture
def judged(original: Model, known: Case, first: tuple[Verdict, truth.Controls]) -> Callable[..., Verdict]:
    """Audit a model, with the attacks that small models need."""
    return partial(truth.judge, original, known=known, controls=first[1])


def test_known_truth_has_enough_subjects(known: Case) -> None:
    assert len(known.forget.sealed) == len(known.twins.sealed) == truth.N_FORGET
    assert known.facts_known == truth.N_FORGET + truth.N_RETAIN


def test_known_truth_retrained_is_removed(first: tuple[Verdict, truth.Controls]) -> None:
    """The same training without the facts: no check may find them."""
    verdict, _ = first
    assert verdict.outcome == "removed", str(verdict)
    made = [c.name for c in by_role("attack") if c.profile != "full" and c.name != "prefill"]
    assert all(verdict.recoveries[c].upper < 0.1 for c in made)  # no answer here has a rest that prefill could ask for
    assert all(verdict.recoveries[c].p > 0.5 for c in ("recall", "paraphrase", "relearn"))
    assert verdict.summary.forget_after <= 0.05
    assert verdict.summary.relearn_r_high < 0.1
    assert verdict.summary.shallow_r >= 0.5
    assert verdict.scorecard.forget_quality == "excellent"
    assert not [f for f in verdict.flags if "too_aggressive" in f]


def test_known_truth_intact_is_intact(original: Model, world: World, judged: Callable[..., Verdict]) -> None:
    verdict = judged(truth.train_further(original, world), profile="quick")
    assert verdict.outcome == "intact", str(verdict)


@pytest.mark.parametrize(
    ("hide", "exposed_by"),
    [
        (truth.hide_by_filter, {"quantize"}),
        (truth.hide_by_bias, {"relearn"}),
        (truth.hide_by_refusal, {"relearn", "benign", "direction_ablation"}),
        (truth.hide_by_password, {"relearn"}),
        (truth.hide_by_shallow_edit, {"relearn"}),
        (truth.hide_by_merged_lora, {"relearn"}),
    ],
    ids=["filter", "bias", "refusal", "password", "shallow edit", "merged LoRA"],
)
def test_known_truth_hidden_is_suppressed(
    hide: Callable[..., Model], exposed_by: set[str], original: Model, world: World, known: Case,
    judged: Callable[..., Verdict],
) -> None:  # fmt: skip
    """Each model answers almost nothing when asked, and the checks made for its kind expose it."""
    extra = [known] if hide is truth.hide_by_shallow_edit else []
    checks = [check for check in truth.CHECKS if check.profile == "quick" or check.name in exposed_by]
    verdict = judged(hide(original, world, *extra), profile="standard", checks=checks)
    assert verdict.outcome == "suppressed", str(verdict)
    assert verdict.recoveries["recall"].r < 0.2
    assert all(verdict.recoveries[c].p < 0.05 for c in exposed_by), str(verdict)


def test_known_truth_wrecked_is_inconclusive(original: Model, world: World, judged: Callable[..., Verdict]) -> None:
    verdict = judged(truth.wreck(original, world), profile="quick")
    assert verdict.outcome == "inconclusive", str(verdict)
    assert {g.name for g in verdict.gates if not g.passed} <= {"retained facts survive", "neutral text survives"}


def test_known_truth_too_few_facts_are_inconclusive(
    original: Model, retrained: Model, world: World, tmp_path: Path
) -> None:
    verdict = audit(original, retrained, world.case(tmp_path, world.forget_subjects[:8]), checks=GATED)
    assert verdict.outcome == "inconclusive", str(verdict)
    assert "enough independent subjects" in verdict.claim


def test_known_truth_what_was_never_known_cannot_be_removed(retrained: Model, known: Case) -> None:
    verdict = audit(retrained, truth.duplicate(retrained, "a copy"), known, checks=GATED)
    assert verdict.outcome == "inconclusive", str(verdict)
    assert "the original knew the facts" in verdict.claim


def test_known_truth_stays_with_another_seed_of_the_audit(
    original: Model, retrained: Model, world: World, tmp_path: Path
) -> None:
    """Another seed draws other folds, foils and retain facts; `test_killed.py` has the same seed, byte for byte."""
    known, controls = world.case(tmp_path, world.forget_subjects, seed=1).on(original), truth.Controls()
    found = {
        name: truth.judge(original, model, known, controls, profile="quick")
        for name, model in (("inconclusive", retrained), ("suppressed", truth.hide_by_refusal(original, world)))
    }
    assert {name: verdict.outcome for name, verdict in found.items()} == {n: n for n in found}
    assert "Nothing was found by the checks that were made" in found["inconclusive"].claim, "quick cannot say more"
