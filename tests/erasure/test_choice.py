"""The rules of the choice, and what is frozen with a request."""

import hashlib
import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from loka import UserError
from loka.erasure import (
    CHOICE_RULES,
    ERASURE_METHODS,
    Person,
    Register,
    Request,
    Situation,
    assess_data,
    choice,
    choose,
    rule_for,
    steps,
)
from loka.erasure.model_impact import DECIDING, SUPPORTING, Group, Measure, ModelImpact

KNOWN = Situation(47, 2000, 0.01, shows="something", training_data=True)


@pytest.fixture
def request_(register: Register, write, today: date) -> Request:
    return steps.receive(register, write(0), today=today)


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({}, "ascent"),
        ({"records": 50}, "ascent"),
        ({"records": 1000}, "ascent"),
        ({"records": 1001}, "retrain"),
        ({"records": 1001, "training_data": False}, "ascent"),
        ({"records": 1001, "shards": True}, "sisa"),
        ({"records": 1001, "shards": True, "training_data": False}, "ascent"),
        ({"share": 0.11}, "retrain"),
        ({"share": 0.11, "training_data": False}, "ascent"),
        ({"stakes": "high"}, "retrain"),
        ({"stakes": "high", "records": 5000, "shards": True}, "retrain"),
        ({"shows": "nothing", "records": 5000, "stakes": "high"}, "exclude"),
        ({"shows": "unknown", "records": 0}, "exclude"),
        ({"shows": "something", "records": 0}, "ascent"),
        ({"shows": "unknown"}, "ascent"),
    ],
)
def test_the_first_rule_that_applies_wins(changes: dict, method: str) -> None:
    assert rule_for(replace(KNOWN, **changes)).method == method


def test_the_table_is_whole() -> None:
    assert {rule.method for rule in CHOICE_RULES} == set(ERASURE_METHODS) - {"located"}, "by overruling alone"
    assert CHOICE_RULES[-1].applies(KNOWN)
    assert all(rule.when and rule.reason.endswith(".") for rule in CHOICE_RULES)
    ascent = ERASURE_METHODS["ascent"].recipe
    assert ascent
    config = ascent.config
    assert (config.objective, config.retain_weight, ascent.sites) == ("unseen_loss", 1.0, 0)  # type: ignore


def test_the_choice_is_frozen_in_the_request_and_the_trail(register: Register, request_: Request, today: date) -> None:
    later = choose(register, request_.id, KNOWN, today=today)
    assert register.request(request_.id) == later
    chosen = later.chosen
    assert chosen
    assert (later.status, later.method, chosen.rule, chosen.on, chosen.overruled) == (
        "chosen", "ascent", "all else", today, False,
    )  # fmt: skip
    assert chosen.situation["records"] == 47
    said = register.entries()[-1].said
    assert said
    assert said.payload["recipe"] == chosen.recipe
    assert {k: said.payload[k] for k in ("method", "rule", "digest")} == {
        "method": "ascent", "rule": "all else", "digest": chosen.digest,
    }  # fmt: skip
    recipe = ERASURE_METHODS["ascent"].recipe
    assert recipe
    text = json.dumps(json.loads(json.dumps(recipe.to_json())), sort_keys=True)
    assert chosen.digest == hashlib.sha256(text.encode()).hexdigest()
    assert choice.frozen_recipe(later) == recipe
    touched = replace(chosen, recipe={**(chosen.recipe or {}), "sites": 601})
    with pytest.raises(UserError, match="is not the one that was frozen"):
        choice.frozen_recipe(replace(later, chosen=touched))
    assert register.verify() is None


def test_the_officer_may_overrule_with_a_reason(register: Register, request_: Request, today: date) -> None:
    first = choose(register, request_.id, KNOWN, today=today)
    for given, sentence in (
        ({}, "has the method 'ascent' since 2024-11-29, and it is frozen"),
        ({"method": "owl", "reason": "x"}, "'owl' is unknown; choose from exclude, located, ascent, retrain, sisa"),
        ({"method": "retrain"}, "--method without --reason overrules nothing"),
        ({"reason": "because"}, "--reason without --method overrules nothing"),
        ({"method": "retrain", "reason": "Mustermann insists"}, "it names the person"),
    ):
        with pytest.raises(UserError, match=sentence):
            choose(register, request_.id, KNOWN, **given)  # type: ignore[arg-type]
        assert register.request(request_.id) == first
    later = choose(register, request_.id, KNOWN, method="retrain", reason="health data", today=today)
    chosen = later.chosen
    assert chosen
    assert (chosen.method, chosen.recommended, chosen.reason, chosen.overruled) == (
        "retrain", "ascent", "health data", True,
    )  # fmt: skip
    assert (chosen.recipe, chosen.digest, choice.frozen_recipe(later)) == (None, "", None)
    assert [entry.kind for entry in register.entries()] == ["received", "chosen", "chosen"]


def test_no_choice_after_the_end(register: Register, request_: Request, today: date) -> None:
    with pytest.raises(UserError, match=f"{request_.id} has no method yet; run `loka erase choose"):
        choice.frozen_recipe(request_)
    steps.refuse(register, request_.id, "a claim is pending", today=today)
    with pytest.raises(UserError, match="is refused, so no method can be chosen any more"):
        choose(register, request_.id, KNOWN)


def test_the_situation_comes_from_an_impact(tmp_path: Path) -> None:
    rows = ["Marta Marchbank claims four windows", "Someone else claims a door", "nothing", "M. Marchbank calls"]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    file = tmp_path / "impact.json"
    file.write_text(json.dumps(assess_data(Person("Marta Marchbank"), [data]).to_json()))
    found = choice.read_situation(file, shows="something")
    assert found == Situation(2, 5 + 3, 8 / 14, "something", training_data=True, shown_by="the officer")
    assert choice.read_situation(file, training_data=False).training_data is False
    assert choice.read_situation(records=3) == Situation(3)
    for given, sentence in (
        ({}, "neither --impact nor --records is given"),
        ({"impact": file, "records": 3}, "both --impact and --records are given"),
        ({"impact": data}, "cannot be read"),
        ({"records": -1}, "-1 records or tokens are not possible"),
        ({"records": 1, "shows": "owl"}, "--shows 'owl' is unknown; choose from nothing, something, unknown"),
        ({"records": 1, "stakes": "low"}, "--stakes 'low' is unknown; choose from normal, high"),
    ):
        with pytest.raises(UserError, match=sentence):
            choice.read_situation(**given)  # type: ignore[arg-type]


def test_what_the_model_shows_is_what_it_showed_when_asked_unless_the_officer_says_otherwise(tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text('"Marta Marchbank claims four windows"\n')
    impact, group = assess_data(Person("Marta Marchbank"), [data]), Group(0.9, 0.1, 40, 0.5, 0.9)
    shown = ModelImpact("m", 1, 1, 9, 9, tuple(Measure(name, group, group) for name in (*DECIDING, SUPPORTING)))
    asked = replace(impact, model=shown)
    for given, shows, shown_by in (
        ({"impact": asked}, "something", "asking"),
        ({"impact": asked, "shows": "nothing"}, "nothing", "the officer"),
        ({"impact": asked, "shows": "unknown"}, "unknown", "the officer"),
        ({"impact": impact}, "unknown", "nobody"),
        ({"records": 1}, "unknown", "nobody"),
    ):
        found = choice.read_situation(**given)  # type: ignore[arg-type]
        assert (found.shows, found.shown_by) == (shows, shown_by)
