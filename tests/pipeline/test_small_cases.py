"""Small cases go on to the end; what cannot be judged is said before anything is computed."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from loka._util.errors import UserError
from loka.ablate import SimulatedRelearning, TrainingConfig
from loka.audit import outlook
from loka.knowledge import Case, case
from loka.model import Model
from loka.pipeline.recipe import Recipe
from loka.pipeline.run import run
from loka.verify import benign, direction_ablation, probe, relearn, soft_prompt

RECIPE = Recipe(
    sites=20,
    config=TrainingConfig(
        "npo", steps=4, lr=5e-3, retain_rows=4, neutral_rows=2,
        simulated_relearning=SimulatedRelearning(start=1, every=2, steps=1, radius=0.1),
    ),
)  # fmt: skip
EMPTY = {"neutral": {"working": "plain.txt", "sealed": "empty.txt"}}
SMALL: dict[str, tuple[dict[str, Any], str]] = {
    "no twins": ({"twins": {}}, "relearn.* The case has no twins, so a leak cannot be told from chance"),
    "one fact": ({"forget": {"capital": 1}}, "relearn.* The case has one unit to forget .* needs two"),
    "one twin": ({"twins": {"capital": 1}}, "relearn.* The case has one unit as twins .* needs two"),
    "two facts": ({"forget": {"capital": 2}}, "The case forgets 2 independent subjects; any verdict needs 12"),
    "nothing to keep": ({"retain": {}}, "nothing sealed to keep, so damage cannot be judged"),
    "no text": (EMPTY, "The sealed neutral text is empty, so damage to plain text cannot be judged"),
    "nothing else": (
        {"forget": {"capital": 1}, "retain": {}, "twins": {}, **EMPTY},
        "Not measured: .*relearn.* The case has no twins",
    ),
}


def start(spec: Any, model: Model, out: Path) -> tuple[list[str], dict[str, Any]]:
    """What a run says before its first stage, and its verdict."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        run(model, spec, out=out, recipe=RECIPE, profile="standard")
    assert (out / "report.html").exists()
    return [str(w.message) for w in caught], json.loads((out / "verdict.json").read_text())


@pytest.fixture
def write(files: Any, tmp_path: Path) -> Any:
    def written(**changes: Any) -> Any:
        path = files.few().write(tmp_path, **changes)
        (tmp_path / "empty.txt").write_text(" \n")
        return case(path)

    return written


@pytest.mark.parametrize("name", SMALL)
def test_a_small_case_goes_on_to_the_end(name: str, planted: Model, write: Any, tmp_path: Path) -> None:
    changes, said = SMALL[name]
    first, verdict = start(write(**changes), planted, tmp_path / "out")
    assert any(re.search(said, sentence) for sentence in first), first
    assert verdict["outcome"] != "removed"
    finite = next(g for g in verdict["gates"] if g["name"] == "every number is finite")
    assert finite["passed"], verdict["reasons"]


@pytest.mark.parametrize("twins", [True, False])
def test_all_answers_equal(planted: Model, write: Any, files: Any, tmp_path: Path, twins: bool) -> None:
    """The model says of every country that it lies far away, so only what it was never taught can be compared with."""
    facts = dict.fromkeys(files.base["relations"]["capital"]["facts"], "away")
    spec = write(
        relations={"place": {"working": ["{} lies far"], "sealed": ["in {} lies far"], "facts": facts}},
        forget={"place": 16}, retain={"place": {"working": 0.5, "sealed": 0.5}},
        twins={"place": files.base["twins"]["capital"]} if twins else {},
    )  # fmt: skip
    assert spec.on(planted).facts_known == len(facts)
    first, verdict = start(spec, planted, tmp_path / "out")
    assert first[0] == (
        "Nothing else in place has another answer, so locating compares with something that the model was never taught."
    )
    assert any("The pool of place has fewer than two answers" in sentence for sentence in first), first
    assert verdict["outcome"] == "inconclusive"
    assert verdict["summary"]["forget_before"] == 1.0


def test_one_question_is_compared_with_neutral_text(planted: Model, kinds: Any, tmp_path: Path) -> None:
    item = {name: value for name, value in kinds.taught("question")[0].items() if name != "subject"}
    sets = {"target": {"kind": "question", "items": [item], "frame": "{}"}}
    spec = kinds.write(tmp_path, "question", sets=sets, retain={}, twins={})
    first, verdict = start(spec, planted, tmp_path / "out")
    assert first[0] == "Nothing else in target has another answer, so locating compares with neutral text."
    assert verdict["outcome"] == "inconclusive"


def test_a_large_enough_case_has_nothing_to_say(planted_case: Any, planted: Model) -> None:
    known = planted_case.on(planted)
    assert outlook(known) == ["The case forgets 16 independent subjects; the verdict 'removed' needs 29."]
    assert outlook(planted_case.whole(), profile="full")[-1].endswith("needs 29.")


@pytest.mark.parametrize("attack", [relearn, soft_prompt, direction_ablation])
def test_an_attack_on_one_unit_is_refused(attack: Any, planted: Model, write: Any) -> None:
    known = write(forget={"capital": 1}).on(planted)
    with pytest.raises(UserError, match="has one unit to forget .*; what works on some units and asks the others"):
        attack(planted, known, **({"original": planted} if attack is direction_ablation else {}))


def test_benign_training_needs_something_to_train_on(planted: Model, write: Any) -> None:
    known: Case = write(retain={}, **EMPTY).on(planted)
    with pytest.raises(UserError, match="neither facts to keep nor neutral text"):
        benign(planted, known)


@pytest.mark.parametrize(("answers", "measured"), [(1, False), (2, True), (3, True)])
def test_a_probe_of_few_answers(answers: int, measured: bool, planted: Model, write: Any, files: Any) -> None:
    """Facts to keep that share their answers are divided into as many folds as they have answers."""
    of = files.few().base["relations"]
    facts = dict(of["capital"]["facts"])
    some = list(facts.values())[8 : 8 + answers]
    facts |= {s: some[i % answers] for i, s in enumerate(list(facts)[8:])}
    relations = of | {"capital": of["capital"] | {"facts": facts}}
    found = probe(planted, write(relations=relations).whole())
    assert (found.value is not None) is measured
    assert measured or "have one answer, so nothing can be fitted" in found.meaning
