"""Batches: which requests are due together, one edit for all of them, each verified by itself."""

import json
from datetime import date
from pathlib import Path

import pytest

from loka import ablate
from loka._util.errors import UserError
from loka._util.files import digest
from loka.erasure import Register, assessment, choice, choose, execution, steps, verification
from loka.erasure.batch import due
from loka.erasure.earlier import Earlier
from loka.erasure.erased import erasures
from loka.erasure.job import joined, own_case
from loka.erasure.lineage import with_edits
from loka.erasure.material import Material
from loka.erasure.outcome import Execution
from loka.erasure.shown import shown_by
from loka.model import Model
from loka.pipeline.recipe import Recipe

from ..conftest import FACTS
from .conftest import TODAY, Claims, content

COUNTRIES = list(FACTS["capital"])
FIRST, SECOND, THIRD = IDS = [f"ER-2024-000{number}" for number in (1, 2, 3)]
CONFIG = ablate.TrainingConfig(steps=50, lr=3e-3, retain_rows=24)
GENTLE = Recipe("gentle", sites=200, locator="attribution", config=CONFIG)
HARSH = Recipe("harsh", method="zero", sites=300, locator="attribution")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, short_audits: None, tmp_path: Path) -> None:
    monkeypatch.setenv("LOKA_REDACTION_KEY", str(tmp_path / "redaction.key"))


@pytest.fixture
def people(register: Register, tmp_path: Path) -> Material:
    """The training data of three people, whose requests are assessed."""
    material = Claims(tmp_path, people=(8, 7, 6)).write()
    for number, id in enumerate(IDS, 1):
        file = tmp_path / f"request-{number}.yaml"
        person = {"name": "Erika Mustermann", "identifiers": [f"C-{number:04}"]}
        file.write_text(json.dumps(content(person=person, received=f"2024-11-0{number}")))
        steps.receive(register, file, today=TODAY)
        assessment.assess(register, id, material.data)
    return material


def subjects(register: Register, ids: list[str], id: str, material: Material) -> dict[str, set[str]]:
    spec = own_case(register, ids, id, material, Earlier((), {}, ()))
    return {role: {p.subject for p in spec.records[f"{role}_passage"]} for role in ("forget", "retain")}


def test_requests_that_are_due_make_a_batch(register: Register, people: Material, tmp_path: Path) -> None:
    def chosen(id: str, method: str) -> None:
        choose(register, id, choice.Situation(12), method=method, reason="by order of the board", today=TODAY)

    with pytest.raises(UserError, match="no request with a method that edits is due within 7 days; name requests"):
        due(register, today=TODAY)  # assessed, but no method is chosen
    for id, method in zip(IDS, ("ascent", "located", "retrain"), strict=True):
        chosen(id, method)
    assert [register.request(id).due for id in IDS] == [date(2024, 12, 2), date(2024, 12, 2), date(2024, 12, 3)]
    assert due(register, today=date(2024, 11, 25)) == [FIRST, SECOND]
    assert due(register, within=0, today=date(2024, 12, 20)) == [FIRST, SECOND]  # overdue
    with pytest.raises(UserError, match=rf"due within 6 days \(the next is {FIRST}, on 2024-12-02\)"):
        due(register, within=6, today=date(2024, 11, 25))
    with pytest.raises(UserError, match="--within -1 days is not possible"):
        due(register, within=-1, today=TODAY)
    with pytest.raises(UserError, match=r"frozen with different recipes \(ascent, located\)"):
        execution.execute(register, [FIRST, SECOND], None, people, tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"the method of {THIRD} is 'retrain'"):
        execution.execute(register, [FIRST, THIRD], None, people, tmp_path / "run")  # type: ignore[arg-type]


def test_the_case_of_each_has_its_own_records_and_keeps_nobody_of_the_batch(
    register: Register, people: Material
) -> None:
    assessment.confirm(register, SECOND, {1: False})  # whose record it is not, may be kept
    kept = {COUNTRIES[8], *COUNTRIES[15:]}
    assert subjects(register, [FIRST, SECOND], FIRST, people) == {"forget": set(COUNTRIES[:8]), "retain": kept}
    assert subjects(register, [FIRST, SECOND], SECOND, people) == {"forget": set(COUNTRIES[9:15]), "retain": kept}
    both = joined([assessment.impact_of(register, id) for id in (FIRST, SECOND)])
    assert both.found().records == 8 + 6
    assert [hit.row for hit in both.hits if hit.counts()] == [*range(1, 9), *range(10, 16)]


def test_one_edit_for_all_and_a_verdict_for_each(
    register: Register, people: Material, planted: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, out = [FIRST, SECOND], tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Execution, "of", _killed)
        execution.execute(register, batch, planted, people, out, GENTLE)
    edit = digest(out / "edit.safetensors")
    assert due(register, out=out) == batch  # so that the same command goes on, whatever became due since
    made = execution.execute(register, batch, planted, people, out, GENTLE)
    assert (made.broken, made.edit, made.records) == ((), edit, 15)
    entries = [(e.kind, e.said.request) for e in register.entries()[-4:]]
    assert entries == [(kind, id) for kind in ("executing", "executed") for id in batch]
    said = register.payloads(SECOND, kind="executed")[0]
    assert (said["batch"], said["edit"], said["of_records"], said["model"]) == (batch, edit, 7, planted.digest())
    assert [(each.requests, each.edit) for each in erasures(register)] == [((FIRST, SECOND), edit)]
    changed = with_edits(register, planted, erasures(register))
    for id, enough in ((FIRST, False), (SECOND, False), (THIRD, True)):
        recall = shown_by(changed, own_case(register, [id], id, people, Earlier((), {}, ()))).person["recall"]
        assert recall is not None
        assert recall >= 0.6 if enough else recall <= 0.3

    found = verification.verify(register, SECOND, planted, people, out)
    assert found.folder == out / SECOND
    assert found.verdict.summary.facts_total == 7
    assert (out / SECOND / "report.html").exists()
    assert [register.request(id).status for id in IDS] == ["executed", "verified", "assessed"]
    assert register.payloads(SECOND)[-1]["verdict"] == digest(out / SECOND / "verdict.json")
    assert register.verify() is None


def test_a_batch_that_harms_the_rest_is_rolled_back_for_all(
    register: Register, people: Material, planted: Model, tmp_path: Path
) -> None:
    made = execution.execute(register, [FIRST, SECOND], planted, people, tmp_path / "run", HARSH)
    assert not made.kept
    entries = [(e.kind, e.said.request) for e in register.entries()[-2:]]
    assert entries == [("rolled back", FIRST), ("rolled back", SECOND)]
    assert [register.request(id).status for id in IDS] == ["assessed"] * 3
    assert not list(tmp_path.rglob("edit.safetensors"))
    assert erasures(register) == []


def _killed(*_: object) -> None:
    raise KeyboardInterrupt
