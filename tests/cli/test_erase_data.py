"""`loka erase assess`, `confirm` and `exclude` on a small training set: what is printed, kept and refused."""

import json
import stat
from datetime import date
from pathlib import Path

import pytest
import yaml

pytest.importorskip("cryptography", reason='needs the extra erasure: pip install "loka[erasure]"')

from loka._util.files import digest
from loka.erasure import Impact, Register

ID = f"ER-{date.today().year}-0001"
PEOPLE = {"Erika Mustermann": "C-4711", "Jonas Kaltenbrunn": "C-9000", "Nobody Atall": "C-1234"}
CLAIMS = ["C-4711 paid in full", "Ann Farrow paid", "Erika Mustermann called", "Jonas Kaltenbrunn", "Erkia Mustermann"]


@pytest.fixture
def erase(erase, tmp_path: Path):
    """The same on a register with a request of each person."""
    for i, (name, number) in enumerate(PEOPLE.items()):
        file = tmp_path / f"request-{i}.yaml"
        person = {"name": name, "identifiers": [number]}
        file.write_text(
            yaml.safe_dump({"received": str(date.today()), "channel": "letter", "ground": "a", "person": person})
        )
        assert erase("new", file)[0] == 0
        file.unlink()
    return erase


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in CLAIMS))
    return path


def opened(tmp_path: Path) -> Register:
    return Register(tmp_path / "register")


def clear(folder: Path) -> list[Path]:
    """The files of a folder that hold a name or number of a person in clear."""
    words = [word.lower().encode() for name, number in PEOPLE.items() for word in (*name.split(), number)]
    return [f for f in folder.rglob("*") if f.is_file() and any(word in f.read_bytes().lower() for word in words)]


def test_assess_prints_hits_without_texts_and_logs_counts_and_digests(erase, data: Path, tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "old.jsonl").write_bytes(data.read_bytes())
    status, said = erase(
        "assess", ID, "--data", data, "--folder", tmp_path / "copies", "--out", tmp_path / "impact.json"
    )
    assert status == 0
    assert f"{ID}: 3 of 5 records count as the person's, 9 of 14 words (64.29%)." in said
    assert all(rule in said for rule in ("number", "name", "misspelt", "0.95", "old.jsonl", "copy of the data"))
    assert "paid" not in said
    assert not {"Mustermann", "Erika", "Erkia", "C-4711"} & set(said.replace("│", " ").split())
    with opened(tmp_path) as register:
        assert register.request(ID).status == "assessed"
        payload = register.entries()[-1].said.payload
    assert (payload["records"], payload["of_records"], payload["words"], payload["files"]) == (3, 5, 9, [digest(data)])
    assert payload["hits"] == {"number": 1, "name": 1, "misspelt": 1}
    kept = tmp_path / "register" / ID / "impact.json"
    assert payload["impact"] == digest(kept)
    assert kept.read_bytes() == (tmp_path / "impact.json").read_bytes()
    assert {stat.S_IMODE(f.stat().st_mode) for f in (kept, tmp_path / "impact.json")} == {0o600}
    assert Impact.from_json(json.loads(kept.read_text())).found().records == 3
    assert not clear(tmp_path / "register")
    assert erase("audit")[0] == 0


def test_a_person_without_a_record_is_said_in_one_sentence(erase, data: Path, tmp_path: Path) -> None:
    status, said = erase("assess", f"{ID[:-1]}3", "--data", data)
    assert status == 0
    assert said.startswith(f"{ID[:-1]}3: no record of the person was found in 5 records.")


def test_confirm_takes_hits_out_and_in(erase, data: Path) -> None:
    erase("assess", ID, "--data", data)
    status, said = erase("confirm", ID, "--not", 3, "--yes", 1)
    assert status == 0
    assert "2 of 5 records count as the person's, 7 of 14 words" in said
    assert erase("confirm", ID, "--not", 4) == (2, f"loka: {ID} has no hit 4; its hits are numbered from 1 to 3.")
    assert erase("confirm", ID, "--not", 1, "--yes", 1)[0] == 2


def test_the_excluded_are_held_back_by_pseudonym_and_none_is_left(erase, data: Path, tmp_path: Path) -> None:
    for id in (ID, f"{ID[:-1]}2"):
        erase("assess", id, "--data", data)
        assert erase("exclude", "--add", id, "--data", data)[0] == 0
    with opened(tmp_path) as register:
        first, second = (register.request(id).pseudonym for id in (ID, f"{ID[:-1]}2"))
    status, said = erase("exclude", "--data", data, "--out", tmp_path / "next.jsonl")
    assert status == 0
    assert f"{first}: 3 records held back." in said
    assert f"{second}: 1 record held back." in said
    assert said.endswith("4 of 5 records held back. The same search finds none left.")
    assert (tmp_path / "next.jsonl").read_text() == json.dumps({"text": "Ann Farrow paid"}) + "\n"
    with opened(tmp_path) as register:
        payload = register.entries()[-1].said.payload
    assert payload["files"] == [[digest(data), digest(tmp_path / "next.jsonl")]]
    assert {name: sum(rules.values()) for name, rules in payload["by"].items()} == {first: 3, second: 1}
    assert len(list((tmp_path / "register" / "exclusions").iterdir())) == 1
    assert not clear(tmp_path / "register")


def test_a_later_request_keeps_the_records_of_the_earlier_one(erase, data: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.jsonl"
    odd.write_text('"Mrs Mustermann came"\n')
    erase("assess", ID, "--data", odd)
    erase("confirm", ID, "--yes", 1)
    erase("exclude", "--add", ID, "--data", odd)
    erase("close", ID, "--reason", "done")
    file = tmp_path / "again.yaml"
    person = {"name": "Erika Mustermann", "identifiers": ["C-4711"]}
    file.write_text(
        yaml.safe_dump({"received": str(date.today()), "channel": "letter", "ground": "a", "person": person})
    )
    erase("new", file)
    erase("assess", f"{ID[:-1]}4", "--data", data)
    assert erase("exclude", "--add", f"{ID[:-1]}4", "--data", data)[0] == 0
    assert "1 of 1 record held back" in erase("exclude", "--data", odd, "--out", tmp_path / "next.jsonl")[1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("assess", f"{ID[:-1]}9", "--data", "DATA"), "has no request"),
        (("assess", ID, "--data", "none.jsonl"), "there is no file or folder 'none.jsonl'"),
        (("confirm", f"{ID[:-1]}2", "--not", 1), "was not assessed yet"),
        (("exclude", "--add", f"{ID[:-1]}2", "--data", "DATA"), "was not assessed yet"),
        (("exclude", "--data", "DATA", "--out", "OUT"), "nobody is on the exclusion list yet"),
        (("exclude", "--data", "DATA"), "give --out to filter the data, or --add"),
    ],
)
def test_faults_are_one_sentence_and_change_nothing(erase, data: Path, tmp_path: Path, arguments, reason: str) -> None:
    places = {"DATA": data, "OUT": tmp_path / "out.jsonl"}
    with opened(tmp_path) as register:
        before = register.entries()
    status, said = erase(*(places.get(each, each) for each in arguments))
    assert (status, reason in said) == (2, True), said
    with opened(tmp_path) as register:
        assert register.entries() == before
    assert not (tmp_path / "out.jsonl").exists()


def test_data_that_changed_since_and_a_touched_impact_are_refused(erase, data: Path, tmp_path: Path) -> None:
    erase("assess", ID, "--data", data)
    data.write_text(data.read_text() + '"one more"\n')
    status, said = erase("exclude", "--add", ID, "--data", data)
    assert (status, "is not as it was when the request was assessed" in said) == (2, True)
    erase("assess", ID, "--data", data)
    assert erase("exclude", "--add", ID, "--data", data)[0] == 0
    kept = tmp_path / "register" / ID / "impact.json"
    kept.write_text(kept.read_text().replace('"row": 1', '"row": 2'))
    status, said = erase("exclude", "--add", ID, "--data", data)
    assert (status, "is missing or is not as the trail records it" in said) == (2, True)


@pytest.mark.parametrize("lost", ["exclusions.key", "exclusions"])
def test_a_lost_list_or_key_is_refused_and_not_made_anew(erase, data: Path, tmp_path: Path, lost: str) -> None:
    erase("assess", ID, "--data", data)
    erase("exclude", "--add", ID, "--data", data)
    (found,) = [*tmp_path.rglob("exclusions/*.json")] if lost == "exclusions" else [*tmp_path.rglob(lost)]
    found.unlink()
    for arguments in (("--add", ID), ("--out", tmp_path / "next.jsonl")):
        status, said = erase("exclude", "--data", data, *arguments)
        assert (status, "missing" in said) == (2, True), said
    assert not (tmp_path / "next.jsonl").exists()
