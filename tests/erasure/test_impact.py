"""What a request touches in training files and folders, and what is left out of the record of it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loka._util.errors import UserError
from loka._util.files import digest
from loka.erasure import Count, Impact, Person, assess_data, excerpts

MARTA = Person("Marta Marchbank", (), ("C-0001",))
TEXTS = ["C-0001 paid in full", "Ann Farrow paid", "Mrs Marchbank called", "Mrata Marchbank paid again", "", "Ben Ott"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": t, "n": i}) + "\n" for i, t in enumerate(TEXTS)))
    (folder / "b.csv").write_text("name,city\nMarta Marchbank,Dunsby\nAnn,Dunsby\n")
    pq.write_table(pa.table({"text": ["Ben", "Marchbank, Marta"]}), folder / "c.parquet")
    (folder / "notes.md").write_text("no format")
    return folder


def test_hits_records_tokens_and_their_share(data: Path) -> None:
    found = assess_data(MARTA, [data])
    assert [(Path(h.file).name, h.row, h.rule) for h in found.hits] == [
        ("a.jsonl", 1, "number"), ("a.jsonl", 3, "titled"), ("a.jsonl", 4, "misspelt"), ("b.csv", 2, "name"),
        ("c.parquet", 2, "reversed"),
    ]  # fmt: skip
    tokens = sum(len(t.split()) for t in TEXTS) + (3 + 2) + (1 + 2)
    assert found.total == Count(6 + 2 + 2, tokens)
    assert found.found() == Count(4, 4 + 4 + 3 + 2)
    assert found.found(0.9) == Count(3, 4 + 3 + 2)
    assert found.share() == 13 / tokens
    assert found.by_rule() == {"number": 1, "name": 1, "reversed": 1, "misspelt": 1, "titled": 1}
    assert [f.digest for f in found.files] == [digest(data / name) for name in ("a.jsonl", "b.csv", "c.parquet")]
    assert [Path(f).name for f in found.unread] == ["notes.md"]
    assert assess_data(MARTA, [data], least=0.9).by_rule() == {"number": 1, "name": 1, "reversed": 1}


def test_a_tokenizer_counts_if_one_is_given(data: Path) -> None:
    found = assess_data(MARTA, [data / "c.parquet"], count=len)
    assert (found.unit, found.total.tokens, found.found().tokens) == ("tokens", 3 + 16, 16)


def test_json_holds_no_text_and_reads_back(data: Path) -> None:
    found = assess_data(MARTA, [data], [data.parent])
    text = json.dumps(found.to_json())
    assert Impact.from_json(json.loads(text)) == found
    assert not [word for word in ("Marta", "Marchbank", "C-0001", "Mrata") if word.lower() in text.lower()]


def test_paths_that_name_the_person_get_an_alias(tmp_path: Path) -> None:
    path = tmp_path / "claims_marta_marchbank.jsonl"
    path.write_text('"x"\n')
    (tmp_path / "marchbank-lora.safetensors").write_bytes(b"x")
    found = assess_data(MARTA, [path], [tmp_path])
    assert found.files[0].file == f"file-{digest(path)[:12]}.jsonl"
    assert [a.path for a in found.artefacts] == ["artefact-1.safetensors"]
    (tmp_path / "notes.Marchbank").write_text("notes")
    assert [name for name in assess_data(MARTA, [tmp_path]).unread if "unread" in name] == [
        "unread-1.safetensors", "unread-2",
    ]  # fmt: skip


def test_a_person_confirms_or_rejects_hits(data: Path) -> None:
    found = assess_data(MARTA, [data / "a.jsonl"])
    file = str(data / "a.jsonl")
    decided = found.confirm({(file, 3): True, (file, 4): False})
    assert [h.confirmed for h in decided.hits] == [None, True, False]
    assert decided.found() == Count(2, 4 + 3)
    assert found.found() == Count(2, 4 + 4)
    with pytest.raises(UserError, match=r"there is no hit at row 2 of .*a.jsonl.*; choose from the hits"):
        found.confirm({(file, 2): True})
    shown = list(excerpts(decided, [data / "a.jsonl"]))
    assert [e.record.text for e in shown] == [TEXTS[i] for i in (0, 2, 3)]
    assert [e.hit.counts() for e in shown] == [True, True, False]


def test_data_that_changed_since_are_refused(data: Path) -> None:
    found = assess_data(MARTA, [data])
    found.check_unchanged([data])
    before = (data / "b.csv").read_text()
    (data / "b.csv").write_text(before.replace("Ann", "Amy"))
    with pytest.raises(UserError, match=r"b.csv' is not as it was when the request was assessed, or is new; assess"):
        found.check_unchanged([data])
    (data / "b.csv").unlink()
    with pytest.raises(UserError, match=r"b.csv' was assessed but is not among the training data now"):
        found.check_unchanged([data])
    (data / "moved.csv").write_text(before)
    found.check_unchanged([data])


def test_broken_rows_are_searched_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "Ann"}\n{"text": "Marta Marchbank\n{"t": "\xff"}\n')
    found = assess_data(MARTA, [path])
    assert [(h.row, h.rule) for h in found.hits] == [(2, "name")]
    assert (found.files[0].broken, found.total.records) == (2, 3)
    assert str(found.files[0].first_broken).startswith("line 2: it is not JSON")


@pytest.mark.parametrize("files", [[], ["empty"]])
def test_nothing_to_search_is_refused(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no training file to search; name files that end in"):
        assess_data(MARTA, [tmp_path / name for name in files])
