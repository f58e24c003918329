"""Training again without a person's records: what is left out, what is kept, and an earlier erasure that comes back."""

import dataclasses
import json
from pathlib import Path

import pytest

from loka import ablate
from loka._util.errors import UserError
from loka.erasure import CaseFile, Register, assessment, choice, execution, held_back, steps, verification
from loka.erasure.documents import DOCUMENTS, render
from loka.erasure.earlier import BACK, UNASKED, Earlier
from loka.erasure.erased import executed
from loka.erasure.lineage import lineage
from loka.erasure.material import Material
from loka.erasure.retraining import FOLDER, LeftOut, Restart, accept, retrain, training_data
from loka.knowledge import Passage
from loka.model import Model, load
from loka.pipeline.recipe import Recipe

from .conftest import TODAY, Claims

FAINT = ablate.Training(epochs=1, rows=16, lr=1e-6)
EDIT = Recipe(
    "gentle", sites=200, locator="attribution", config=ablate.TrainingConfig(steps=40, lr=3e-3, retain_rows=16)
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, short_audits: None, tmp_path: Path) -> None:
    monkeypatch.setenv("LOKA_REDACTION_KEY", str(tmp_path / "redaction.key"))


@pytest.fixture
def chosen(register: Register, assessed: str) -> str:
    """The id of an assessed request for which a training was chosen."""
    situation = choice.Situation(16, shows="something", training_data=True)
    choice.choose(register, assessed, situation, method="retrain", reason="by order of the board", today=TODAY)
    return assessed


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_model_is_trained_again_without_the_records(
    register: Register, chosen: str, material: Material, planted: Model, untaught: Model, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    made = retrain(register, chosen, planted, Restart(untaught, FAINT), material, out)
    assert made.kept
    result = load(str(out / FOLDER))
    others = [row["text"] for row in rows(material.data[0])]
    same = ablate.retrain(untaught, others, without=range(16), training=FAINT)
    with same.applied(untaught) as model:
        assert result.digest() == made.result == model.digest()
    assert made.result != untaught.digest()
    plan, said = (entry.said.payload for entry in register.entries()[-2:])
    assert (plan["base"], plan["texts"], plan["left_out"]["person"]) == (untaught.digest(), 28, 16)
    assert (said["model"], said["result"], said["edit"]) == (planted.digest(), result.digest(), "")
    assert register.request(chosen).status == "executed"
    with pytest.raises(
        UserError, match=rf"was trained again for {chosen}; give the model .* \(SHA-256 {made.result[:12]}"
    ):
        execution.execute(register, request_of(register, tmp_path, material), planted, material, tmp_path / "x", EDIT)
    assert [each.requests for each in lineage(register, made.result).present] == [(chosen,)]
    assert register.verify() is None


def request_of(register: Register, folder: Path, material: Material) -> str:
    """The id of an assessed request of another customer."""
    path = folder / "another.yaml"
    person = {"name": "Jonas Kaltenbrunn", "identifiers": ["C-0020"]}
    path.write_text(json.dumps({"received": str(TODAY), "channel": "letter", "ground": "a", "person": person}))
    request = steps.receive(register, path, today=TODAY)
    assessment.assess(register, request.id, material.data)
    return request.id


def test_a_training_that_harms_the_rest_is_rolled_back_and_a_killed_one_is_not_made_twice(
    register: Register, chosen: str, material: Material, planted: Model, untaught: Model, tmp_path: Path, monkeypatch
) -> None:
    harsh = Restart(untaught, ablate.Training(epochs=1, rows=4, lr=0.05))
    made = retrain(register, chosen, planted, harsh, material, tmp_path / "harsh")
    assert not made.kept
    assert not (tmp_path / "harsh" / FOLDER).exists()
    assert [entry.kind for entry in register.entries()[-2:]] == ["executing", "rolled back"]
    assert register.request(chosen).status == "chosen"
    out, start = tmp_path / "run", Restart(untaught, FAINT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("loka.erasure.retraining.finish", _killed)
        retrain(register, chosen, planted, start, material, out)
    with pytest.raises(UserError, match="was begun with another training; name another --out"):
        retrain(register, chosen, planted, harsh, material, out)
    monkeypatch.setattr("loka.erasure.retraining.train_without", _killed)
    assert retrain(register, chosen, planted, start, material, out).kept
    assert [entry.kind for entry in register.entries()].count("executing") == 2


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_what_is_left_out(register: Register, assessed: str, material: Material, write, today) -> None:
    texts = [row["text"] for row in rows(material.data[0])]
    with material.data[0].open("a") as file:
        file.write('{"about": "x", "text": "C-0300 is the number"}\nbroken\n{"about": "x", "text": " "}\n')
    assessment.assess(register, assessed, material.data)
    other = steps.receive(register, write(3, person={"name": "Aylin Demirsoy", "identifiers": ["C-0300"]}), today=today)
    assessment.assess(register, other.id, material.data)
    held_back.add_to_exclusions(register, other.id, material.data)
    gone = Earlier((), {"ER-1": (Passage(texts[20]), Passage(texts[21]))}, ())
    found = training_data(register, assessed, gone, material)
    assert found.left_out == LeftOut(person=16, earlier=2, listed=1, unreadable=2)
    assert [text for n, text in enumerate(found.texts) if n not in found.without] == [*texts[16:20], *texts[22:44]]


def test_what_does_not_fit_is_refused(
    register: Register, assessed: str, material: Material, planted: Model, tiny, tmp_path: Path
) -> None:
    before = register.entries()
    with pytest.raises(UserError, match=f"no method was chosen for {assessed}; overrule it by"):
        retrain(register, assessed, planted, Restart(planted), material, tmp_path / "run")
    choice.choose(
        register, assessed, choice.Situation(16), method="retrain", reason="by order of the board", today=TODAY
    )
    with pytest.raises(UserError, match="is 'retrain'; it edits nothing: train again by --base or --retrained"):
        execution.execute(register, assessed, planted, material, tmp_path / "run")
    with pytest.raises(UserError, match="differ in shape or tokenizer"):
        retrain(register, assessed, planted, Restart(tiny("LlamaForCausalLM")), material, tmp_path / "run")
    with pytest.raises(UserError, match="cannot have lr = 0.0; give a number above 0"):
        retrain(register, assessed, planted, Restart(planted, ablate.Training(lr=0.0)), material, tmp_path / "run")
    with pytest.raises(UserError, match="is the model in use itself"):
        accept(register, assessed, planted, planted, material)
    assert len(register.entries()) == len(before) + 1
    assert not (tmp_path / "run").exists()


def test_an_earlier_erasure_that_a_training_brings_back_is_said_loudly(
    register: Register, planted: Model, untaught: Model, tmp_path: Path, write
) -> None:
    """The first person's records are erased by an edit; the second's training elsewhere had them among its data."""
    whole = Claims(tmp_path, people=(16, 12)).write()
    lines = whole.data[0].read_text().splitlines(keepends=True)
    material = {}
    for name, part in (("first", lines[16:36]), ("second", [*lines[:16], *lines[36:]])):
        (tmp_path / f"{name}.jsonl").write_text("".join(part))
        material[name] = dataclasses.replace(whole, data=(tmp_path / f"{name}.jsonl",))
    ids = {}
    for number, (name, customer) in enumerate((("first", "C-0002"), ("second", "C-0001"))):
        person = {"name": "Erika Mustermann", "identifiers": [customer]}
        ids[name] = steps.receive(register, write(number, person=person), today=TODAY).id
        assessment.assess(register, ids[name], material[name].data)
    assert execution.execute(register, ids["first"], planted, material["first"], tmp_path / "edit", EDIT).kept
    situation = choice.Situation(16, shows="something", training_data=True, stakes="high")
    assert choice.choose(register, ids["second"], situation, today=TODAY).method == "retrain"

    made = accept(register, ids["second"], planted, untaught, material["second"])
    assert made.kept
    assert [(each.request, each.outcome) for each in made.earlier] == [(ids["first"], UNASKED)]
    with_first = dataclasses.replace(material["second"], earlier=material["first"].data)
    out = tmp_path / "audit"
    with pytest.raises(UserError, match="was executed by training again, which gave the model"):
        verification.verify(register, ids["second"], planted, with_first, out, retrained=planted)
    found = verification.verify(register, ids["second"], planted, with_first, out, retrained=untaught)
    assert [(each.request, each.outcome) for each in found.undone] == [(ids["first"], BACK)]
    loud = f"THE ERASURE OF {ids['first']} CAME BACK"
    assert loud in found.plain
    assert any(loud in flag for flag in json.loads((out / "verdict.json").read_text())["flags"])
    assert loud in (out / "report.html").read_text()
    last = register.entries()[-1]
    assert (last.kind, last.said.request, last.said.payload["after"]) == ("came back", ids["first"], ids["second"])

    case = CaseFile.of(register, ids["first"], today=TODAY)
    assert not case.done
    report = render(DOCUMENTS[0], case)["report.html"].decode()
    assert "A later erasure, of another request, brought some of the records back" in report
    case = CaseFile.of(register, ids["second"], verdict=out / "verdict.json", today=TODAY)
    assert not case.done
    assert "BROUGHT RECORDS BACK THAT WERE ERASED EARLIER" in render(DOCUMENTS[0], case)["report.html"].decode()
    assert executed(register, ids["second"]).result == untaught.digest()
    assert register.verify() is None
