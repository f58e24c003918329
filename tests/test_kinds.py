"""The contract of every kind of item: it is located, edited, asked, attacked and judged like a fact."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loka
from loka import ablate, audit, locate, verify
from loka._util.errors import UserError
from loka.ablate import TrainingConfig
from loka.ablate.objectives import OBJECTIVES
from loka.knowledge import KINDS, Case, CaseSpec, Kind, Split, case, known, shown
from loka.locate.counterfactual import log_odds, pairs
from loka.locate.counterpart import counterpart
from loka.model import Model, Prompt, encode, logits
from loka.verify import Budget, capped
from loka.verify.check import Setting
from loka.verify.checks import CHECKS
from loka.verify.units import unit_key


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def spec(kinds: Any, kind: Kind, tmp_path: Path) -> CaseSpec:
    return kinds.write(tmp_path, kind)


@pytest.fixture
def small(kinds: Any, kind: Kind, tmp_path: Path) -> CaseSpec:
    """For what depends on no number of items."""
    return kinds.write(tmp_path, kind, sizes=(8, 12, 8))


def test_the_planted_model_knows_it_and_a_subject_is_a_unit(planted: Model, spec: CaseSpec, kind: Kind) -> None:
    found = spec.on(planted)
    assert found.facts_total == 16
    assert found.facts_known >= 14
    units = [{unit_key(i) for i in side} for side in (found.forget.working, found.forget.sealed)]
    assert units[0] == units[1]
    assert len(units[0]) == found.facts_known
    kept = [{unit_key(i) for i in side} for side in (found.retain.working, found.retain.sealed)]
    assert not kept[0] & kept[1]
    assert found.near == tuple(dict.fromkeys(("target", "others")))
    assert all(i.kind == kind for i in found.forget.working)


def test_what_was_never_taught_is_not_known(untaught: Model, planted: Model, spec: CaseSpec, kind: Kind) -> None:
    items = list(spec.whole().forget.working)
    assert np.mean(known(planted, items)) >= 0.8
    chance = 0.0 if KINDS[kind].greedy else 1 / len(items[0].pool)
    assert np.mean(known(untaught, items)) <= chance + 0.2
    assert 0.0 <= min(shown(untaught, items)) <= max(shown(planted, items)) <= 1.0


def test_shown_is_the_share_of_the_pool_by_an_independent_sum(fresh: Model, spec: CaseSpec, kind: Kind) -> None:
    if KINDS[kind].greedy:
        pytest.skip("facts are asked greedily; test_scoring.py has their pools")
    item = spec.whole().forget.working[0]
    scores = []
    for answer in item.pool:
        prompt, both = (
            fresh.tokenizer(t, return_tensors="pt")["input_ids"].to(fresh.device)
            for t in (str(item.prompt), f"{item.prompt} {answer}")
        )
        with torch.no_grad():
            logp = fresh.hf(input_ids=both).logits[0].log_softmax(-1)
        n = prompt.shape[1]
        total = sum(float(logp[n + k - 1, both[0, n + k]]) for k in range(both.shape[1] - n))
        scores.append(total / (both.shape[1] - n) if KINDS[kind].long else total)
    weights = np.exp(np.array(scores) - max(scores))
    assert shown(fresh, [item])[0] == pytest.approx(weights[0] / weights.sum(), rel=1e-4)


def test_it_is_located_with_its_counterfactual(planted: Model, spec: CaseSpec, kind: Kind) -> None:
    found = spec.on(planted)
    item = found.forget.working[0]
    other = counterpart(planted, found, item)
    assert other != item.prompt
    if kind == "pair":
        assert other == item.counterfactual
    else:
        assert item.subject not in other
    localization = locate.attribution(planted, found)
    assert np.isfinite(localization.frame["score"]).all()
    assert localization.record.n_forget
    effects = locate.patching(planted, found, "head", facts=[item])
    assert np.isfinite(effects).all()
    assert np.abs(effects).max() > 0
    for name in ("taylor", "integrated_gradients"):
        assert locate.perform(name, planted, found).parts


def test_the_metric_of_long_answers_is_the_mean_over_their_tokens(fresh: Model, spec: CaseSpec, kind: Kind) -> None:
    found = spec.whole()
    item = next(i for i in found.forget.working if len(i.answer.split()) == 2)
    both = pairs(fresh, found, [item])
    scores = logits(fresh, both.clean).detach()
    batch = encode(fresh, [item.prompt], [item.answer])
    logp = scores.log_softmax(-1)[0].gather(-1, batch.labels[0][:, None])[:, 0]
    if KINDS[kind].long:
        assert float(log_odds(scores, both)) == pytest.approx(float(logp.mean()), rel=1e-5)
    else:
        assert float(log_odds(scores, both)) != pytest.approx(float(logp.mean()), rel=1e-3)


def test_a_case_without_retain_items_is_located_by_its_own_effects(
    kinds: Any, planted: Model, tmp_path: Path, kind: Kind
) -> None:
    found = kinds.write(tmp_path, kind, retain={}).on(planted)
    localization = locate.attribution(planted, found)
    assert (localization.frame["score"] - localization.frame["forget"]).abs().max() < 1e-9
    assert localization.record.n_retain == 0
    assert (localization.frame["low"] > 0).any()
    assert localization.frame["q"].between(0, 1).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_on_it(planted: Model, spec: CaseSpec, kind: Kind, objective: str) -> None:
    found = spec.on(planted).subset(4)
    sites = [loka.Site(layer, "mlp") for layer in (2, 3)]
    edit = ablate.tune(planted, found, sites, TrainingConfig(objective=objective, steps=2, lr=1e-3, mixup_rows=4))
    assert edit.parameters
    with edit.applied(planted):
        assert np.isfinite(shown(planted, list(found.forget.working))).all()


def test_an_edit_takes_it_away_and_keeps_the_others(planted: Model, spec: CaseSpec, kind: Kind) -> None:
    found = spec.on(planted)
    sites = [loka.Site(layer, "mlp") for layer in range(4)]
    edit = ablate.tune(planted, found, sites, TrainingConfig(objective="npo", steps=40, lr=3e-3))
    before = [np.mean(shown(planted, list(side))) for side in (found.forget.working, found.retain.working)]
    with edit.applied(planted):
        after = [np.mean(shown(planted, list(side))) for side in (found.forget.working, found.retain.working)]
    assert after[0] < before[0] - 0.3
    assert after[1] > after[0] + 0.1


def test_every_check_reads_it_or_says_why_not(planted: Model, small: CaseSpec, kind: Kind) -> None:
    found = small.on(planted)
    original = loka.model.bare(planted)
    budget = Budget(steps=2, lr=1e-3, measured=(1, 2))
    outputs = verify.neutral_outputs(planted, found)
    for check in CHECKS:
        if not getattr(check, "applies", lambda case: True)(found):
            continue
        if why := check.obstacle(found):
            assert not KINDS[kind].shared, why
            continue
        setting = Setting(original=original, budget=budget if check.trains else None, neutral_outputs=outputs)
        reading = check.run(planted, found, setting)
        json.dumps(reading.to_json())
        if reading.value is None:
            assert reading.meaning
            continue
        assert math.isfinite(reading.value), check.name
        assert set(reading.samples["forget"]) <= {unit_key(i) for i in (*found.forget.sealed, *found.retain.sealed)}
        assert check.cost(planted, found, setting) >= 0


def test_recall_says_what_the_kind_is_asked_by(planted: Model, untaught: Model, spec: CaseSpec, kind: Kind) -> None:
    found = spec.on(planted)
    reading, nothing = verify.recall(planted, found), verify.recall(untaught, found)
    assert reading.value is not None
    assert nothing.value is not None
    pool, twins = reading.details["pool"], reading.details["pool_twins"]
    assert 0 <= min(pool, twins) <= max(pool, twins) <= 1
    if kind != "choice":  # its sealed frames are words that the small model has never seen
        assert reading.value > nothing.value + 0.3
        assert pool > max(twins, nothing.details["pool"] + 0.2)
    example: Any = reading.details["examples"]
    assert example[0]["prompt"] == found.forget.sealed[0].prompt


def test_it_goes_the_whole_way(planted: Model, small: CaseSpec) -> None:
    checks = capped({"relearn": Budget(4, 1e-3, (1, 2, 4))})
    found = small.on(planted)
    sites = [loka.Site(layer, "mlp") for layer in (2, 3)]
    edit = ablate.tune(planted, found, sites, TrainingConfig(objective="npo", steps=30, lr=3e-3))
    verdict = audit(planted, edit, found, profile="quick", checks=checks)
    assert verdict.outcome in ("suppressed", "inconclusive", "removed", "intact")
    assert verdict.summary.forget_before is not None
    assert json.dumps(verdict.to_json({}))


def test_nothing_edited_is_intact(planted: Model, spec: CaseSpec, kind: Kind) -> None:
    checks = capped({"relearn": Budget(2, 1e-3, (1, 2))})
    verdict = audit(planted, loka.model.bare(planted), spec.on(planted), profile="quick", checks=checks)
    if kind in ("choice", "passage"):  # their sealed prompts are words or beginnings that tell the small model nothing
        assert verdict.outcome == "inconclusive"
    else:
        assert verdict.recoveries["recall"].low >= 0.5, str(verdict)
        assert verdict.outcome in ("intact", "inconclusive")  # 16 units are few: chance may spread too far


def test_a_saved_case_is_the_same_case(planted: Model, spec: CaseSpec, tmp_path: Path) -> None:
    spec.save(tmp_path / "run")
    again = case(tmp_path / "run" / "case.yaml")
    assert again.digest == spec.digest
    assert again.on(planted).forget == spec.on(planted).forget


def test_twins_are_made_where_the_case_names_none(kinds: Any, planted: Model, tmp_path: Path) -> None:
    found = kinds.write(tmp_path, "question", twins={}).on(planted)
    twin = found.twins.sealed[0]
    own = found.forget.sealed[0]
    assert twin.subject not in kinds.countries
    assert twin.prompt == own.prompt.about(twin.subject)
    assert twin.answer == own.answer
    assert len(found.twins.sealed) == len(found.forget.sealed)
    assert found.holdout == Split((), ())


def test_items_of_one_subject_are_one_unit_where_the_case_says_so(kinds: Any, planted: Model, tmp_path: Path) -> None:
    items = kinds.taught("question")
    for i, item in enumerate(items):
        item["subject"] = f"group {i % 4}"
    sets = {"target": {"kind": "question", "frame": "{}", "items": items}}
    by_subject = kinds.write(tmp_path / "a", "question", sets=sets, retain={}, twins={}, unit="subject").on(planted)
    by_item = kinds.write(tmp_path / "b", "question", sets=sets, retain={}, twins={}, unit="item").on(planted)
    assert len(verify.recall(planted, by_subject).samples["forget"]) == 4
    assert len(verify.recall(planted, by_item).samples["forget"]) == by_item.facts_known


def test_folds_never_divide_a_unit() -> None:
    from loka.verify.relearn import _folds

    items = [replace(Case.of([loka.Question(f"q {n}", "a", wrong=("b",))]).forget.sealed[0], unit=str(n % 7))
             for n in range(20)]  # fmt: skip
    folds = _folds(items, 5, 5, 0)
    assert len(folds) == 5
    for train, held_out in folds:
        assert not {i.unit for i in train} & {i.unit for i in held_out}
    assert sorted(i.prompt for _, held_out in folds for i in held_out) == sorted(i.prompt for i in items)


def test_a_case_from_python(planted: Model) -> None:
    pair = loka.Pair("the capital of A is", "the capital of B is", answer="x", foil="y")
    found = Case.of([pair], name="task")
    assert isinstance(found, Case)
    assert found.forget.working[0].counterfactual == "the capital of B is"
    with pytest.raises(UserError, match="there are no items to forget"):
        Case.of([])
    with pytest.raises(UserError, match=r"'Paris' is not an item of a case; give one of Fact, Question"):
        Case.of(["Paris"])  # type: ignore[list-item]


def test_an_edit_on_a_corpus_is_judged_by_questions(kinds: Any, planted: Model, tmp_path: Path) -> None:
    found = kinds.write(
        tmp_path, "choice",
        sets={
            "corpus": {"kind": "passage", "items": kinds.taught("passage")},
            "exam": {"kind": "choice", "items": kinds.taught("choice"), "frame": "{}"},
            "mmlu": {"kind": "choice", "items": kinds.taught("choice", first=False), "frame": "{}"},
            "never": {"kind": "choice", "items": kinds.never("choice"), "frame": "{}"},
        },
        forget={"corpus": {"working": "all"}, "exam": {"sealed": "all"}},
        retain={"mmlu": {"working": 0.5, "sealed": 0.5}},
        twins={"never": "all"},
    ).on(planted)  # fmt: skip
    assert {i.kind for i in found.forget.working} == {"passage"}
    assert {i.kind for i in found.forget.sealed} == {"choice"}
    assert found.near == ("corpus", "exam", "mmlu")
    edit = ablate.tune(planted, found, [loka.Site(3, "mlp")], TrainingConfig(objective="npo", steps=2))
    with edit.applied(planted):
        assert verify.recall(planted, found).n == len(found.forget.sealed)


OVERLAP = [{"question": f"the capital of {x} is", "answer": y} for x, y in (("A", "B"), ("C", "D"))]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sets": {"target": {"kind": "question", "items": OVERLAP}, "others": {"kind": "question", "items": OVERLAP}},
          "twins": {}}, r"sets.others: 2 item\(s\) stand in target too"),
        ({"retain": {"elsewhere": {"working": 0.5}}}, "retain names 'elsewhere', which is not among the relations"),
        ({"forget": {"target": "some"}}, "'some' is not an amount; give all, a number up to 100,000, a share"),
        ({"forget": {"target": {"working": "all"}}}, "the sealed part of the case 'some-questions' forgets nothing"),
        ({"forget": {"target": 99}}, "forget asks for 99 items of 'target', but there are 1"),
        ({"sets": {"target": {"kind": "question", "source": "gone.jsonl"}}, "retain": {}, "twins": {}}, "gone.jsonl"),
        ({"sets": {"target": {"kind": "question"}}, "retain": {}, "twins": {}}, "needs either a source or items"),
        ({"sets": {"target": {"kind": "riddle", "items": OVERLAP}}, "retain": {}, "twins": {}}, "sets.target.kind"),
        ({"sets": {"target": {"kind": "question", "items": OVERLAP, "frame": "Q"}}, "retain": {}, "twins": {}},
         "needs one slot"),
    ],
)  # fmt: skip
def test_a_fault_in_a_set_is_one_clear_sentence(
    kinds: Any, planted: Model, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        kinds.write(tmp_path, "question", **changes).on(planted)


def test_all_sets_are_checked_at_once(kinds: Any, tmp_path: Path) -> None:
    broken = {"kind": "question", "source": "gone.jsonl"}
    with pytest.raises(UserError) as caught:
        kinds.write(
            tmp_path, "question", sets={"a": broken, "b": broken}, forget={"a": "all"}, retain={"b": {}}, twins={}
        )
    assert "2 error(s)" in str(caught.value)


def test_the_same_text_in_another_unicode_form_is_the_same_item(kinds: Any, tmp_path: Path) -> None:
    sets = {
        "target": {"kind": "question", "items": [{"question": "Café  where?", "answer": "Lyon"}]},
        "others": {"kind": "question", "items": [{"question": "Cafe\u0301 where?", "answer": "Lyon"}]},
    }
    with pytest.raises(UserError, match="stand in target too"):
        kinds.write(tmp_path, "question", sets=sets, twins={})


def test_a_prompt_knows_its_slot() -> None:
    prompt = Prompt.fill("The capital of {}, not of Nigeria, is", "Niger")
    assert prompt.about("Kenya") == "The capital of Kenya, not of Nigeria, is"
    assert Prompt.spot("Nigeria is not Niger", "Niger").slots == ((15, 20),)


def test_a_pair_has_its_counterfactual_as_control(planted: Model) -> None:
    pair = loka.Pair("the capital of A is", "the capital of B is", answer="x", foil="y")
    (twin,) = Case.of([pair]).twins.sealed
    assert (twin.prompt, twin.answer, twin.foils) == ("the capital of B is", "x", ("y",))


def test_a_bare_case_goes_through_and_says_what_it_cannot_claim(kinds: Any, planted: Model, tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "subject"} for row in kinds.taught("question")]
    sets = {"target": {"kind": "question", "frame": "{}", "items": rows}}
    found = kinds.write(tmp_path, "question", sets=sets, retain={}, twins={}).on(planted)
    assert found.twins == found.retain == Split((), ())
    edit = ablate.tune(planted, found, [loka.Site(3, "mlp")], TrainingConfig(objective="npo", steps=4))
    verdict = audit(planted, edit, found, profile="quick")
    assert verdict.outcome == "inconclusive"
    assert any("no twins" in reason for reason in verdict.reasons)
    assert verdict.summary.retain_same_before is None
    assert verdict.summary.forget_before is not None


def test_a_subject_as_a_unit_is_on_one_side(kinds: Any, tmp_path: Path) -> None:
    rows = kinds.taught("question")
    sets = {
        "target": {"kind": "question", "items": rows[:8]},
        "others": {"kind": "question", "items": [row | {"subject": rows[0]["subject"]} for row in rows[8:]]},
    }
    with pytest.raises(UserError, match="is the subject of items in target too"):
        kinds.write(tmp_path, "question", sets=sets, twins={}, unit="subject")


def test_never_taught_facts_of_a_set_are_its_twins(kinds: Any, planted: Model, tmp_path: Path) -> None:
    sets = {
        name: {"kind": "fact", "items": [row | {"relation": "P36"} for row in rows]}
        for name, rows in (("target", kinds.taught("fact")), ("never", kinds.never("fact")))
    }
    found = kinds.write(tmp_path, "fact", sets=sets, retain={}).on(planted)
    assert len(found.twins.sealed) == 40
    assert found.twins == found.holdout
