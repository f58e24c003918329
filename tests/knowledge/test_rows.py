"""Rows of data files in every format, and one clear sentence about each file that cannot be read."""

import gzip
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loka._util.errors import UserError
from loka.knowledge import read_hub, read_parquet, read_text
from loka.knowledge.rows import field, is_hub_id, rows

ANN = [{"question": "Who?", "answer": "Ann"}, {"question": "Where?", "answer": "Łódź"}]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ANN)


def save(path: Path, data: str | bytes) -> Path:
    data = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz", "A.JSONL.GZ"])
@pytest.mark.parametrize(
    "text",
    [json.dumps(ANN), json.dumps(ANN, indent=2), LINES, LINES.replace("\n", "\r\n\r\n") + "\n", "\ufeff" + LINES],
)
def test_json_is_an_array_or_lines_whatever_its_name(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.lower().endswith(".gz") else text.encode())
    assert rows(path) == ANN


def test_json_keeps_what_is_in_its_texts(tmp_path: Path) -> None:
    row = {"text": "one\u2028two\x85three", "n": 3, "of": [1, None], "x": None}
    path = save(tmp_path / "a.jsonl", json.dumps(row, ensure_ascii=False) + '\n{"text": NaN}\n')
    assert rows(path) == [row, {"text": None}]
    assert rows(save(tmp_path / "b.json", json.dumps({"name": "x", "samples": [1]}, indent=1))) == [
        {"name": "x", "samples": [1]}
    ]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv.gz", ",")])
def test_csv_has_a_header_and_texts(tmp_path: Path, name: str, mark: str) -> None:
    long = "x" * 200_000
    lines = [["id", " text "], ["007", '"a line\nand ""more"""'], ["", long], [], ["1"]]
    path = save(tmp_path / name, "\ufeff" + "\n".join(mark.join(cells) for cells in lines))
    assert rows(path) == [
        {"id": "007", "text": 'a line\nand "more"'}, {"id": None, "text": long}, {"id": "1", "text": None},
    ]  # fmt: skip


def test_parquet_gives_lists_whole_numbers_and_none(tmp_path: Path) -> None:
    table = pa.table({
        "wrong": [["x", "y"], None, []], "n": pa.array([1, None, 3]), "text": ["a", None, "c"],
        "share": [0.5, float("nan"), None], "of": pa.array(["u", "u", None]).dictionary_encode(),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == [
        {"wrong": ["x", "y"], "n": 1, "text": "a", "share": 0.5, "of": "u"},
        {"wrong": None, "n": None, "text": None, "share": None, "of": "u"},
        {"wrong": [], "n": 3, "text": "c", "share": None, "of": None},
    ]
    pd.DataFrame({"wrong": [np.array(["x"]), None], "n": [1, 2]}).to_parquet(tmp_path / "b.parquet")
    assert rows(tmp_path / "b.parquet") == [{"wrong": ["x"], "n": 1}, {"wrong": None, "n": 2}]


BAD: dict[str, tuple[str, str | bytes, str]] = {
    "plain text": ("a.jsonl", "I don't know.\nNo idea.\n", "is plain text, not JSON: it begins with \"I don't know.\""),
    "a broken line": ("a.jsonl", f'{LINES}\n{{"question": \n', "line 3 of .* is not JSON .*column"),
    "a broken array": ("a.json", '[\n{"a": 1},\n{"a" 2}]', "is not JSON .*line 3, column 6"),
    "a broken object": ("a.json", "{oh}", "is not JSON .*line 1, column 2"),
    "deep nesting": ("a.json", "[" * 200_000, "is nested too deeply"),
    "deep nesting in a line": ("a.jsonl", LINES + '\n{"a": ' + "[" * 200_000, "line 3 of .* is nested too deeply"),
    "a huge number": ("a.json", '[{"a": ' + "1" * 5000 + "}]", "cannot be read as JSON"),
    "not UTF-8": ("a.jsonl", '{"a": "x"}\n{"a": "é"}'.encode("latin-1"), "byte 19, on line 2, is 0xe9; save it"),
    "UTF-16": ("a.csv", "a,b\n1,2".encode("utf-16"), "byte 1, on line 1, is 0xff; save it as UTF-8"),
    "rows that are lists": ("a.json", '[{"a": 1}, [1]]', "row 2 of .* is not an object with named fields but a list"),
    "rows that are texts": ("a.json", '["x"]', "row 1 of .* but a text; fix that row"),
    "no rows": ("a.json", "[]", "holds no rows; give a file with at least one"),
    "an empty file": ("a.jsonl", "\n\n", "holds no rows"),
    "only a header": ("a.csv", "a,b\n", "holds no rows"),
    "too many cells": ("a.csv", "a,b\n1,2\n1,2,3\n", "row 2 of .* has 3 cells, but the header names 2 columns"),
    "a repeated column": ("a.csv", "a,b,a\n1,2,3\n", "the header of .* names 'a' twice"),
    "semicolons": ("a.csv", "a;b\n1;2\n", "has the single column 'a;b'; save it with commas"),
    "an open quote": ("a.csv", 'a,b\n"1,2\n', "is not CSV"),
    "not Parquet": ("a.parquet", "a,b", "cannot be read as Parquet"),
    "another suffix": ("a.xlsx", "PK", "is not a data file by its name; it must end in .json"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "message"), BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, data: str | bytes, message: str) -> None:
    path = save(tmp_path / name, data)
    with pytest.raises(UserError, match=message) as caught:
        rows(path)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [gzip.compress(b'{"a": 1}', mtime=0)[:-6], b"not gzip", gzip.compress(b"x" * 99, mtime=0)[:20] + b"y" * 30]
)
def test_a_damaged_archive(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read .*give a whole file"):
        rows(path)


def test_an_archive_is_refused_while_it_unfolds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_text, "LARGEST", 5 * read_text.CHUNK)
    path = save(tmp_path / "a.jsonl.gz", b" " * 200 * read_text.CHUNK)
    unfolded = []
    whole = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: unfolded.append(n) or whole(self, n))
    with pytest.raises(UserError, match="holds more than 5,242,880 bytes"):
        rows(path)
    assert unfolded == [read_text.CHUNK] * 6
    with pytest.raises(UserError, match="holds more than"):
        rows(save(tmp_path / "a.csv", b" " * 6 * read_text.CHUNK))


def test_large_parquet_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": pa.array(["x" * 1000] * 5000)}), path)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(read_parquet, "LARGEST", 2_000_000)
    with pytest.raises(UserError, match="holds more than"):
        rows(path)
    monkeypatch.setattr(read_parquet, "MOST_ROWS", 4999)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_: pytest.fail("it was read"))
    with pytest.raises(UserError, match="has 5,000 rows; 4,999 are the most"):
        rows(path)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loka.knowledge.rows.read_hub", lambda *_: pytest.fail("the hub was asked"))


@pytest.mark.parametrize(
    "source", ["none.json", "owner/none.jsonl", "folder", "folder/none", "a/b/c", "/none", ".", "x" * 5000]
)
@pytest.mark.usefixtures("no_network")
def test_a_missing_file_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        UserError, match="the data file .* (does not exist|is a folder); give a file that ends in .json"
    ):
        rows(source)


def test_what_is_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("locuslab/TOFU")
    assert is_hub_id("owner/data-v1.0")
    (tmp_path / "locuslab").mkdir()
    assert not is_hub_id("locuslab/TOFU")
    assert not any(map(is_hub_id, ["tofu", "owner/rows.csv", "/owner/name", "../name", "a/b/c", "https://owner/name"]))


def hub(load: Callable[..., object]) -> types.ModuleType:
    module = types.ModuleType("datasets")
    module.load_dataset = load  # type: ignore[attr-defined]
    return module


def test_a_data_set_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    loaded = [{"question": "Who?", "n": float("nan")}]
    monkeypatch.setitem(sys.modules, "datasets", hub(lambda *a, **k: asked.append((*a, k)) or loaded))
    monkeypatch.setattr(read_hub.importlib.util, "find_spec", lambda name: object())
    assert rows("locuslab/TOFU", config="forget05", split="train") == [{"question": "Who?", "n": None}]
    assert asked == [("locuslab/TOFU", "forget05", {"split": "train"})]
    monkeypatch.setattr(read_hub, "MOST_ROWS", 0)
    with pytest.raises(UserError, match=r"has 1 rows; 0 are the most .*such as train\[:1000\]"):
        rows("locuslab/TOFU", split="train")


def test_the_hub_out_of_reach_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach\n'locuslab/TOFU' on the Hub")

    monkeypatch.setitem(sys.modules, "datasets", hub(fail))
    monkeypatch.setattr(read_hub.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(UserError, match="cannot be read from the hub .*; give a local file") as caught:
        rows("locuslab/TOFU", split="train")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="which split of 'locuslab/TOFU'"):
        rows("locuslab/TOFU")
    monkeypatch.setattr(read_hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package datasets"):
        rows("locuslab/TOFU", split="train")
    with pytest.raises(UserError, match="is a local file, so it has no config and no split"):
        rows(save(tmp_path / "a.jsonl", LINES), split="train")


def test_the_first_field_that_a_row_has() -> None:
    assert field("a.json", 1, {"a": None, "b": 0}, "a", "b") == 0
    with pytest.raises(UserError, match=r"row 7 of 'a.json' has no x or y \(it has a, b\); fix that row"):
        field("a.json", 7, {"a": 1, "b": 2}, "x", "y")
