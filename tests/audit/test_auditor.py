"""The verdict on an untouched model and on one that only hides the facts; `test_known_truth.py` has other kinds."""

import copy
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from loka import ablate, audit, locate
from loka._util.errors import UserError
from loka.audit.controls import shallow_sibling
from loka.audit.schedule import budget_steps
from loka.audit.store import Store
from loka.audit.summary import summarise
from loka.knowledge import Case
from loka.model import Edit, Model, Site, wrap
from loka.verify import Budget, Verdict, capped, make_reading, recall_by_unit
from loka.verify.judge.gates import only_for_removal

CAP = Budget(8, 1e-3)  # what the small model needs; the table has SmolLM2's


@pytest.fixture(autouse=True)
def stronger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["loka.audit.plan"], "CHECKS", capped({"relearn": CAP, "benign": CAP}))


# On another machine, training may give twins that differ by chance; then these gates may fail.
LUCK = {"the twins' spread is small enough", "never-taught subjects are not flagged"}


def holds(verdict: Verdict, outcome: str) -> None:
    closed = {g.name for g in verdict.gates if not g.passed and not only_for_removal(g)}
    assert closed <= LUCK, str(verdict)
    assert verdict.outcome == ("inconclusive" if closed else outcome), str(verdict)


def test_untouched_is_intact(planted: Model, planted_case: Case) -> None:
    same = wrap(copy.deepcopy(planted.hf), planted.tokenizer, "a copy")
    verdict = audit(planted, same, planted_case)
    holds(verdict, "intact")
    assert verdict.recoveries["recall"].low >= 0.5
    assert verdict.summary.forget_after == verdict.summary.forget_before == 1
    assert verdict.summary.relearn_r == pytest.approx(1, abs=0.05)
    assert verdict.summary.edited_parameters is None
    assert verdict.summary.random_forget_after is None
    assert verdict.scorecard.forget_quality == "insufficient"


def test_hidden_is_suppressed(planted: Model, planted_case: Case) -> None:
    """An edit of the last layers answers nothing when asked, harms nothing, and does not resist relearning."""
    last = [Site(layer, part) for layer in (2, 3) for part in ("attn", "mlp")]
    edit = ablate.tune(
        planted,
        planted_case,
        last,
        ablate.TrainingConfig(objective="twin_distribution", steps=60, lr=1e-3, retain_weight=30.0),
    )
    verdict = audit(planted, edit, planted_case)
    holds(verdict, "suppressed")
    assert verdict.recoveries["relearn"].p < 0.05
    assert verdict.summary.forget_after <= 0.15
    assert verdict.summary.retain_same_after >= 0.8
    assert verdict.recoveries["recall"].r < verdict.recoveries["relearn"].r
    assert verdict.summary.edited_parameters == edit.parameters
    assert verdict.summary.random_forget_after is None  # a whole layer has no random counterpart


def test_an_edit_comes_with_its_random_sites(planted: Model, planted_case: Case, tmp_path: Path) -> None:
    best = locate.attribution(planted, planted_case).top(30)
    edit = ablate.tune(planted, planted_case, best, ablate.TrainingConfig(steps=10, lr=3e-3))
    store, seen = Store(), []
    verdict = audit(planted, edit, planted_case, store=store, progress=lambda what, *_: seen.append(what))
    assert set(store.edits) == {"shallow", "random"}
    random = store.edits["random"].record
    assert random.arguments == edit.record.arguments
    assert not set(random.sites or ()) & set(edit.record.sites or ())
    assert set(store.readings) == {"before", "after", "shallow", "random"}
    assert verdict.summary.random_forget_after is not None
    assert verdict.summary.random_relearn_r is not None
    assert verdict.cost > 0
    assert "recall on before" in seen
    # from a file, and with everything measured already
    seen.clear()
    again = audit(planted, edit.save(tmp_path / "edit.safetensors"), planted_case, store=store,
                  progress=lambda what, *_: seen.append(what))  # fmt: skip
    assert seen == []
    assert str(again) == str(verdict)
    assert again.summary == verdict.summary


def test_incomparable_models_are_refused(planted: Model, planted_case: Case, tiny: Callable[[str], Model]) -> None:
    with pytest.raises(UserError, match="different shapes; audit a model made from the original"):
        audit(planted, tiny("LlamaForCausalLM"), planted_case)
    other = copy.deepcopy(planted.tokenizer)
    other.add_tokens(["another"])
    with pytest.raises(UserError, match="different tokenizers"):
        audit(planted, wrap(copy.deepcopy(planted.hf), other, "other"), planted_case)
    with pytest.raises(UserError, match="'huge' is not a profile; choose one of quick"):
        audit(planted, planted, planted_case, profile="huge")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="there is no edit file"):
        audit(planted, "none.safetensors", planted_case)
    with pytest.raises(UserError, match="made for weights"):
        audit(planted, Edit((), (), "0" * 64), planted_case)


def test_the_budget_is_the_one_that_brings_back_most_of_the_shallow_sibling() -> None:
    def shallow(curve: dict[str, float]):
        return dataclasses.replace(
            make_reading("relearn", {"forget": {"a": 1.0}}, "."), details={"curve": {"forget": curve}}
        )

    assert budget_steps(shallow({"1": 0.2, "2": 0.6, "4": 0.9, "8": 0.95})) == 8
    assert budget_steps(shallow({"1": 0.1, "2": 0.3, "8": 0.2})) == 2  # more steps wear the facts down
    assert budget_steps(shallow({"1": 0.1, "8": 0.1})) == 1
    assert budget_steps(shallow({"0": 0.9, "1": 0.1, "8": 0.2})) == 8  # step 0 is before the attack


def test_the_sibling_shows_as_little_and_hides_no_more_than_it_must(planted: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)

    def shown(edit: Edit) -> float:
        with edit.applied(planted):
            return float(np.mean(list(recall_by_unit(planted, known.forget.sealed).values())))

    edit = shallow_sibling(planted, known, recall=0.3, objective="npo")
    strength = edit.record.strength
    assert shown(edit) <= 0.35 < shown(edit.scaled(planted, (strength - 1 / 16) / strength))
    assert {name.split(".")[2] for name in edit.names} == {"2", "3"}  # of four layers


def test_what_was_not_measured_is_none(planted: Model, planted_case: Case) -> None:
    numbers = summarise(planted, planted, planted_case.on(planted), {"before": {}, "after": {}}).to_json()
    assert numbers.pop("facts_known") == numbers.pop("facts_total") == 44
    assert set(numbers.values()) == {None}
