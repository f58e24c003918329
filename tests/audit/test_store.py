"""A folder's readings: garbled files, and readings of other tables, are refused before anything is measured."""

import json
from pathlib import Path

import pytest

from loka import UserError, audit
from loka.audit import FolderStore, Plan
from loka.audit.jobs import Failed
from loka.knowledge import Case, CaseSpec, Redactor
from loka.model import Edit, EditRecord, Model
from loka.verify import Reading, make_reading

READING = make_reading("recall", {"forget": {"capital/a": 1.0}}, ".").to_json()


@pytest.fixture
def known(planted: Model, planted_case: CaseSpec) -> Case:
    return planted_case.on(planted)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"after": 3}', '{"after": {"recall": 3}}', '{"after": {"recall": {}}}']
    + [json.dumps({"after": {"recall": READING | wrong}}) for wrong in ({"x": 1}, {"value": "x"}, {"ci": 3})],
)  # fmt: skip
def test_garbled_readings_are_refused(planted: Model, known: Case, tmp_path: Path, text: str) -> None:
    FolderStore(tmp_path, planted, planted, known)
    (tmp_path / "readings.json").write_text(text)
    with pytest.raises(UserError, match=r"readings.json' (cannot be read|is not a file of readings)"):
        FolderStore(tmp_path, planted, planted, known)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_garbled_list_of_what_was_audited_is_refused(planted: Model, known: Case, tmp_path: Path, text: str) -> None:
    FolderStore(tmp_path, planted, planted, known).keep("after", Reading.from_json(READING))
    (tmp_path / "controls" / "audited.json").write_text(text)
    with pytest.raises(UserError, match="name another --out"):
        FolderStore(tmp_path, planted, planted, known)


@pytest.mark.parametrize(("model", "check"), [("after", "shout"), ("louder", "recall")])
def test_readings_of_other_tables_are_refused(
    planted: Model, known: Case, tmp_path: Path, model: str, check: str
) -> None:
    store, seen = FolderStore(tmp_path, planted, planted, known), []
    (tmp_path / "readings.json").write_text(json.dumps({model: {check: READING | {"check": check}}}))
    store = FolderStore(tmp_path, planted, planted, known)
    with pytest.raises(UserError, match=r"'shout' is not a check|has readings of 'louder'"):
        audit(planted, planted, known, store=store, progress=lambda *_: seen.append(_))
    assert not seen


def test_a_name_is_not_a_row() -> None:
    with pytest.raises(UserError, match="'recall' is not a row of the table of checks"):
        Plan.of("quick", checks=["recall"])  # type: ignore[list-item]
    with pytest.raises(UserError, match="'random' is not a row of the table of controls"):
        Plan.of("quick", controls=["random"])  # type: ignore[list-item]


def test_a_redacted_folder_has_no_text_in_what_lasts_only_for_the_audit(
    planted: Model, known: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOKA_REDACTION_KEY", str(tmp_path / "key"))
    redactor, folder = Redactor(known), tmp_path / "run"
    subject = known.forget.sealed[0].subject
    record = EditRecord("zero", planted.name, sites=(), arguments={"subject": subject})
    edit = Edit((), (), planted.digest(), record)
    store = FolderStore(folder, planted, edit, known, redactor)
    found = {"values": {"1": {f"capital/{subject}": 0.25}}, "taught": [0.5]}
    store.keep_part("after", "relearn", "forget 0 0", found, seconds=2.0)
    store.keep_part("after", "relearn", "forget 0 1", Failed(f"nothing about {subject} is finite"), seconds=1.0)
    shared = store.file_of("after", edit)
    for path in (folder / "parts.json", shared):
        assert subject.encode() not in path.read_bytes()
    assert Edit.load(shared).digest() == edit.digest()
    again = FolderStore(folder, planted, edit, known, redactor)
    assert again.parts["after", "relearn"]["forget 0 0"] == found
    assert isinstance(again.parts["after", "relearn"]["forget 0 1"], Failed)
    store.keep("after", Reading.from_json(READING | {"check": "relearn"}))
    store.tidy()
    assert not (folder / "parts.json").exists()
    assert not shared.exists()
    assert store.seconds["relearn on after"] == 3.0
