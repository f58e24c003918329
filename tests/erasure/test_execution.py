"""Executing, replaying and verifying a request on the small model, from the entry before to the verdict after."""

import dataclasses
import json
import shutil
from datetime import date
from pathlib import Path

import pytest

from loka import ablate
from loka._util.errors import UserError
from loka._util.files import digest
from loka.erasure import Register, assessment, choice, execution, steps, upkeep, verification
from loka.erasure.erased import executed
from loka.erasure.lineage import edit_path
from loka.erasure.material import Material, case_of
from loka.erasure.outcome import Execution
from loka.erasure.plain_words import PLAIN_OUTCOMES
from loka.erasure.replay import Restored, replay
from loka.erasure.safeguards import Utility, broken_safeguards
from loka.model import Edit, Model, load
from loka.pipeline.recipe import Recipe
from loka.verify import recall

from ..conftest import FACTS
from .conftest import PERSON, Write

COUNTRIES = list(FACTS["capital"])
GENTLE = Recipe("gentle", sites=200, config=ablate.TrainingConfig(steps=40, lr=3e-3, retain_rows=16))
WEAK = Recipe("weak", sites=50, config=ablate.TrainingConfig(steps=1, lr=1e-4))
HARSH = Recipe("harsh", method="zero", sites=300)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOKA_REDACTION_KEY", str(tmp_path / "redaction.key"))


def kinds_of(register: Register) -> list[str]:
    return [entry.kind for entry in register.entries()]


def clear(*folders: Path) -> list[str]:
    """The files with the person's name or number, or with a word of one of their records, in clear."""
    words = [w.lower().encode() for w in ("Erika", "Mustermann", "C-0001", *COUNTRIES[:16])]
    files = [f for folder in folders for f in folder.rglob("*") if f.is_file() and f.suffix != ".png"]
    return [f"{f.name}: {w}" for f in files for w in words if w in f.read_bytes().lower()]


def test_the_case_has_the_persons_records_others_and_the_holdout(
    register: Register, assessed: str, material: Material
) -> None:
    assessment.confirm(register, assessed, {1: False})
    case = case_of(assessed, assessment.impact_of(register, assessed), material).whole()
    about = {role: {i.subject for i in getattr(case, role).working} for role in ("forget", "twins")}
    kept = {passage.subject for passage in case.spec.records["retain_passage"]}
    assert about["forget"] == set(COUNTRIES[1:16])
    assert kept == {COUNTRIES[0], *COUNTRIES[16:]}
    assert len(about["twins"]) == 40
    assert case.spec.file.unit == "item"


def test_a_hit_that_nobody_confirmed_is_neither_forgotten_nor_kept(
    register: Register, assessed: str, material: Material
) -> None:
    line = {"customer": "x", "about": COUNTRIES[20], "text": f"Mrs Mustermann lies in {COUNTRIES[20]} far away"}
    with material.data[0].open("a") as file:
        file.write(json.dumps(line) + "\n")
    impact = assessment.assess(register, assessed, material.data)
    assert impact.hits[-1].rule == "titled"
    case = case_of(assessed, impact, material).whole()
    items = [*case.forget.working, *case.retain.working, *case.retain.sealed]
    assert len(items) == 16 + 28
    assert not [i for i in items if "Mustermann" in f"{i.prompt} {i.answer}"]


@pytest.mark.parametrize(("recipe", "method"), [(GENTLE, "located"), (choice.ASCENT, "ascent")])
def test_a_recipe_without_a_chosen_method_is_told_as_what_it_does(recipe: Recipe, method: str) -> None:
    """The person is told that parts were found only if they were."""
    assert execution._method_of(recipe) == method


def test_an_edit_that_holds_is_kept_replayed_and_verified(
    register: Register, assessed: str, material: Material, planted: Model, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    made = execution.execute(register, assessed, planted, material, out, GENTLE)
    assert made.kept
    assert register.request(assessed).method == "located"
    assert kinds_of(register)[-2:] == ["executing", "executed"]
    plan, said = (e.said.payload for e in register.entries()[-2:])
    assert (plan["method"], plan["model"], plan["files"]) == ("tune", planted.digest(), [digest(material.data[0])])
    assert plan["recipe"] == json.loads(json.dumps(GENTLE.to_json()))
    assert said["edit"] == made.edit == digest(out / "edit.safetensors")
    request = register.request(assessed)
    assert (request.status, request.method) == ("executed", "located")
    assert upkeep.purge(register) == [assessed]

    # the edit does what it is for, and a restored model gets the same edit
    case = case_of(assessed, assessment.impact_of(register, assessed), material).on(planted)
    assert replay(register, assessed, planted, tmp_path / "restored") == Restored((assessed,))
    restored = load(str(tmp_path / "restored"))
    with Edit.load(out / "edit.safetensors").applied(planted) as edited:
        assert edited.digest() == restored.digest()
    assert recall(planted, case).value > 0.99
    assert recall(restored, case).value < 0.7

    found = verification.verify(register, assessed, planted, material, out)
    assert found.plain == PLAIN_OUTCOMES[found.verdict.outcome].found
    last = register.entries()[-1]
    assert (last.kind, last.said.payload["outcome"]) == ("verified", found.verdict.outcome)
    assert last.said.payload["verdict"] == digest(out / "verdict.json")
    assert register.request(assessed).status == "verified"
    assert register.verify() is None
    assert clear(register.folder, register.keys_folder, out) == []
    assert clear(material.data[0].parent)  # the search finds what is there


def test_an_edit_that_did_not_work_is_followed_by_another_for_the_same_person(
    register: Register, assessed: str, material: Material, planted: Model, write: Write, tmp_path: Path
) -> None:
    assert execution.execute(register, assessed, planted, material, tmp_path / "run", WEAK).kept
    first = Edit.load(tmp_path / "run" / "edit.safetensors")
    steps.close(register, assessed, "the model still gave the records")
    again = steps.receive(register, write(person=PERSON), today=date.today()).id
    assessment.assess(register, again, material.data)
    made = execution.execute(register, again, planted, material, tmp_path / "again", GENTLE)
    assert made.kept
    second = Edit.load(tmp_path / "again" / "edit.safetensors")
    case = case_of(again, assessment.impact_of(register, again), material).on(planted)
    with first.applied(planted):
        assert recall(planted, case).value > 0.9
        with second.applied(planted):
            assert recall(planted, case).value < 0.7
    assert register.verify() is None


def test_an_edit_that_harms_the_rest_is_rolled_back(
    register: Register, assessed: str, material: Material, planted: Model, tmp_path: Path
) -> None:
    made = execution.execute(register, assessed, planted, material, tmp_path / "run", HARSH)
    assert not made.kept
    assert made.after.perplexity > 1.01 * made.before.perplexity
    assert kinds_of(register)[-2:] == ["executing", "rolled back"]
    assert register.request(assessed).status == "assessed"
    assert not list(tmp_path.rglob("edit.safetensors"))
    with pytest.raises(UserError, match="was not executed"):
        executed(register, assessed)
    before = register.entries()
    with pytest.raises(UserError, match="was begun with another recipe; name another --out"):
        execution.execute(register, assessed, planted, material, tmp_path / "run", GENTLE)
    assert register.entries() == before
    assert execution.execute(register, assessed, planted, material, tmp_path / "another", GENTLE).kept


def test_another_base_gets_an_edit_of_its_own_by_the_frozen_recipe(
    register: Register, assessed: str, material: Material, planted: Model, tmp_path: Path
) -> None:
    execution.execute(register, assessed, planted, material, tmp_path / "run", GENTLE)
    other = load(str(_nudged(planted, tmp_path / "base")))
    with pytest.raises(UserError, match="the edit must be made anew; give its training data"):
        replay(register, assessed, other, tmp_path / "anew")
    made = replay(register, assessed, other, tmp_path / "anew", material)
    assert isinstance(made, Execution)
    assert made.kept
    assert kinds_of(register)[-2:] == ["executing", "replayed"]
    assert register.entries()[-1].said.payload["model"] == other.digest()
    assert made.edit == digest(tmp_path / "anew" / "edit.safetensors") != executed(register, assessed).edit
    assert Recipe.from_json(executed(register, assessed).recipe) == GENTLE


def _nudged(model: Model, folder: Path) -> Path:
    """A base model of the same make with slightly other weights."""
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    other = load(str(folder))
    next(iter(other.parameters.values())).data.mul_(1.0001)
    other.hf.save_pretrained(folder)
    return folder


def test_a_killed_execution_goes_on_and_announces_itself_once(
    register: Register, assessed: str, material: Material, planted: Model, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(Execution, "of", _killed)
    with pytest.raises(KeyboardInterrupt):
        execution.execute(register, assessed, planted, material, tmp_path / "run", GENTLE)
    assert kinds_of(register)[-1] == "executing"
    made = digest(tmp_path / "run" / "edit.safetensors")
    monkeypatch.undo()
    monkeypatch.setenv("LOKA_REDACTION_KEY", str(tmp_path / "redaction.key"))
    assert execution.execute(register, assessed, planted, material, tmp_path / "run", GENTLE).edit == made
    assert kinds_of(register).count("executing") == 1


def _killed(*_: object) -> Utility:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("after", "broken"),
    [
        (Utility(0.87, 10.1), []), (Utility(0.869, 10.0), ["accuracy"]), (Utility(0.9, 10.11), ["perplexity"]),
        (Utility(0.0, float("inf")), ["accuracy", "perplexity"]),
        (Utility(float("nan"), float("nan")), ["accuracy", "perplexity"]),
        (Utility(1.0, 1.0), []),
    ],
)  # fmt: skip
def test_the_safeguards_are_three_points_and_one_per_cent(after: Utility, broken: list[str]) -> None:
    found = broken_safeguards(Utility(0.9, 10.0), after)
    assert [word for word in ("accuracy", "perplexity") if any(word in each for each in found)] == broken
    assert len(found) == len(broken)


def test_what_changed_since_is_refused_and_nothing_is_lost(
    register: Register, assessed: str, material: Material, planted: Model, tmp_path: Path
) -> None:
    def go(what: Material = material) -> None:
        execution.execute(register, assessed, planted, what, tmp_path / "run", GENTLE)

    before = register.entries()
    with pytest.raises(UserError, match="in the holdout, too"):
        go(dataclasses.replace(material, holdout=material.data))
    with pytest.raises(UserError, match="no text in a column 'body'"):
        go(dataclasses.replace(material, field="body"))
    lines = material.data[0].read_text()
    material.data[0].write_text(lines + '"more"\n')
    with pytest.raises(UserError, match="is not as it was when the request was assessed"):
        go()
    material.data[0].write_text(lines)
    with pytest.raises(UserError, match="is assessed and was not executed"):
        verification.verify(register, assessed, planted, material, tmp_path / "run")
    assert register.entries() == before
    assert not (tmp_path / "run").exists()
    go()
    with pytest.raises(UserError, match="is executed and cannot be executed"):
        go()
    other = load(str(_nudged(planted, tmp_path / "base")))
    before = register.entries()
    with pytest.raises(UserError, match="is not the model that .* was executed on"):
        verification.verify(register, assessed, other, material, tmp_path / "run")
    kept = edit_path(register, executed(register, assessed).edit)
    shutil.copyfile(kept, tmp_path / "safe")
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="is missing or is not the edit that"):
        replay(register, assessed, planted, tmp_path / "restored")
    shutil.copyfile(tmp_path / "safe", kept)
    assert register.entries() == before


def test_a_person_without_a_record_and_a_request_not_assessed(
    register: Register, write, material: Material, planted: Model, tmp_path: Path, today
) -> None:
    id = steps.receive(register, write(5), today=today).id
    with pytest.raises(UserError, match="is received and cannot be executed; assess it first"):
        execution.execute(register, id, planted, material, tmp_path / "run", GENTLE)
    assessment.assess(register, id, material.data)
    with pytest.raises(UserError, match="has no record of the person of two words or more"):
        execution.execute(register, id, planted, material, tmp_path / "run", GENTLE)
