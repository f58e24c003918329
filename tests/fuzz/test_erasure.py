"""Mangled files of an erasure: requests, registers, keys, impacts, exclusion lists, verdicts, templates and data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

for package in ("cryptography", "holidays", "rapidfuzz", "fpdf"):
    pytest.importorskip(package, reason='needs the extra erasure: pip install "loka[erasure]"')

import fpdf

from loka.erasure import CaseFile, Register, artefacts, assessment, documents, held_back, pdf, steps
from loka.erasure.case_file import DataImpact, read_finding
from loka.erasure.impact import read_impact
from loka.erasure.records import read
from loka.erasure.request import read_request

from .conftest import Kind, attack, mangle

TODAY = date(2024, 11, 29)
NAME = "Erika Mustermann"
REQUEST = {
    "received": "2024-11-04", "channel": "e-mail", "ground": "b", "country": "DE", "notes": "by letter, too",
    "person": {"name": NAME, "variants": ["Erika M."], "identifiers": ["erika@example.org", "C-4711"]},
    "identity": {"verified": "2024-11-05", "how": "reply from the address on file"},
}  # fmt: skip
ROWS = [
    {"text": f"{NAME} claims a window", "n": 1},
    {"text": "somebody else claims a door", "n": 2.5},
    {"text": "E. Mustermann calls again, C-4711", "n": None},
]
READING = {"check": "recall", "value": 0.05, "meaning": "The model shows 5%.", "n": 20}
VERDICT = {
    "outcome": "removed", "claim": "Not recoverable.", "reasons": ["recall: r = 0.02."], "flags": ["over_forgotten"],
    "gates": [],
    "scorecard": {
        "forget_accuracy": 0.05, "retain_accuracy": 0.97, "membership_auc": 0.62, "forget_quality": "excellent",
        "privacy_leakage": "moderate",
    },
    "summary": {"forget_before": 0.9, "forget_after": 0.05, "perplexity_before": 20.0, "perplexity_after": 20.125},
    "readings": {"recall": READING, "membership": READING | {"value": None}},
}  # fmt: skip


@dataclass(frozen=True)
class Office:
    """A folder with a register, its keys and one request, assessed and on the exclusion list."""

    folder: Path
    id: str

    def open(self, _: Path | None = None) -> Register:
        return Register(self.folder / "register")

    def all(self, _: Path | None = None) -> Any:
        """Everything that a register answers."""
        with self.open() as register:
            person = register.person(self.id)
            fault = register.verify()
            return register.requests(), person, register.requests_of(person), held_back.exclusions(register), fault


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Office:
    folder = tmp_path_factory.mktemp("office")
    (folder / "request.yaml").write_text(yaml.safe_dump(REQUEST))
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "verdict.json").write_text(json.dumps(VERDICT, indent=1))
    with Register(folder / "register", create=True) as register:
        id = steps.receive(register, folder / "request.yaml", today=TODAY).id
        assessment.assess(register, id, [folder / "train.jsonl"])
        held_back.add_to_exclusions(register, id, [folder / "train.jsonl"])
        register.database.wipe()
    return Office(folder, id)


@pytest.fixture
def office(whole: Office, tmp_path: Path) -> Office:
    shutil.copytree(whole.folder, tmp_path / "office")
    return replace(whole, folder=tmp_path / "office")


def alike(found: object, right: object) -> bool:
    return found == right


def test_requests(office: Office) -> None:
    attack(Kind(office.folder / "request.yaml", lambda p: read_request(p, today=TODAY), mangle.YAML))


def test_impacts(office: Office) -> None:
    """Of an impact that is given, and of the one that the register keeps."""
    kept = office.folder / "register" / office.id / "impact.json"
    given = shutil.copy(kept, office.folder / "impact.json")
    attack(Kind(given, lambda p: DataImpact.of(read_impact(p)), mangle.JSON))
    with office.open() as register:
        attack(Kind(kept, lambda _: assessment.impact_of(register, office.id), mangle.JSON, alike))


def test_exclusion_lists(office: Office) -> None:
    (path,) = (office.folder / "register" / "exclusions").glob("*.json")
    with office.open() as register:
        attack(Kind(path, lambda _: held_back.exclusions(register), mangle.JSON, alike))


@pytest.mark.parametrize(
    "name", ["identifiers-1.key", "values-1.key", "signing-1.key", "exclusions.key", "head-*.json"]
)
def test_keys(office: Office, name: str) -> None:
    """Other keys than those of the register are told of, whichever they are."""
    (path,) = (office.folder / "register-keys").glob(name)

    def told(found: Any, right: Any) -> bool:
        return found == right or found[-1] is not None

    attack(Kind(path, office.all, mangle.JSON, told))


def test_registers(office: Office) -> None:
    path = office.folder / "register" / "register.sqlite"

    def opened(_: Path) -> Any:
        for rest in path.parent.glob("register.sqlite-*"):
            rest.unlink()
        return office.all()

    def told(found: Any, right: Any) -> bool:
        return found == right or found[-1] is not None

    attack(Kind(path, opened, (mangle.flip, mangle.flip, mangle.cut, mangle.noise, mangle.repeat), told))


def test_verdicts(office: Office) -> None:
    with office.open() as register:
        person = register.person(office.id)
    attack(Kind(office.folder / "verdict.json", lambda p: read_finding(p, person), mangle.JSON))


@pytest.fixture
def light_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """PDFs in the fonts of the format itself: to read others for each input takes ten times as long as all else."""
    monkeypatch.setattr(pdf, "FONT", "helvetica")
    monkeypatch.setattr(fpdf.FPDF, "add_font", lambda *_: None)
    monkeypatch.setattr(fpdf.FPDF, "normalize_text", lambda _, text: text.encode("latin-1", "replace").decode("L1"))


@pytest.mark.parametrize("name", ["not_tried.html", "words.html", "layout.html", "style.css"])
def test_templates(office: Office, light_paper: None, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = office.folder / "templates"
    folder.mkdir()
    shutil.copy(documents.TEMPLATES / name, folder)
    if name in ("layout.html", "style.css"):  # of the page alone
        monkeypatch.setattr(documents, "write_pdf", lambda *_, **__: b"")
    with office.open() as register:
        case = CaseFile.of(
            register, office.id, impact=office.folder / "register" / office.id / "impact.json",
            verdict=office.folder / "verdict.json", today=TODAY,
        )  # fmt: skip
    document = next(d for d in documents.DOCUMENTS if d.name == "not_tried")
    attack(Kind(folder / name, lambda p: documents.render(document, case, p.parent)))


WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".jsonl": lambda rows, path: rows.to_json(path, orient="records", lines=True),
    ".csv": lambda rows, path: rows.to_csv(path, index=False),
    ".parquet": lambda rows, path: rows.to_parquet(path),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_training_data(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"train{suffix}"
    WRITERS[suffix](pd.DataFrame(ROWS), path)
    attack(Kind(path, lambda p: list(read(p)), mangle.TEXT))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model.gguf", "adapter_config.json"])
def test_what_was_made_of_the_data(tmp_path: Path, name: str) -> None:
    """Folders with anything in them are searched for models and copies."""
    header = json.dumps({"__metadata__": {"loka": "x"}, "w": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]}})
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"\0")
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(20) + b"general.file_type" + bytes([4, 0, 0, 0, 7, 0, 0, 0]))
    for config in ("config.json", "adapter_config.json"):
        (tmp_path / config).write_text(json.dumps({"_name_or_path": "some", "base_model_name_or_path": "some"}))
    ways = mangle.TENSORS if name.endswith(".safetensors") else mangle.JSON
    attack(Kind(tmp_path / name, lambda p: artefacts([p.parent]), ways))
