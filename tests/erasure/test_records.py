"""Records of training files against other readers, and one clear sentence about what cannot be read."""

import csv
import datetime
import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loka._util.errors import UserError
from loka.erasure import Record, read, training_files
from loka.erasure.filtering import copy_kept
from loka.erasure.records import parquet_batches

ROWS = [
    {"name": "Zoë", "note": 'two\nlines, "quoted"', "turns": [{"role": "user", "content": "hello"}], "n": 7},
    {"name": "Łódź", "note": "", "turns": [], "n": None},
    {"name": "Ann", "note": "a\u2028b", "turns": [{"role": "x", "content": "y"}], "n": 104233.0},
]


def write(path: Path, rows: list[dict]) -> Path:
    """The rows in the format that the name says."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
        return path
    if name.endswith("jsonl"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        text = pd.DataFrame(rows)[["name", "note", "n"]].to_csv(index=False, sep="\t" if name.endswith("tsv") else ",")
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "A.JSONL", "a.parquet"])
def test_nested_values_come_in_order_and_numbers_apart(tmp_path: Path, name: str) -> None:
    found = list(read(write(tmp_path / name, ROWS)))
    assert [r.row for r in found] == [1, 2, 3]
    assert found[0].texts == ("Zoë", 'two\nlines, "quoted"', "user", "hello")
    assert found[0].others == ("role", "content", "7")
    assert found[1].texts == ("Łódź",)
    assert found[2].others[-1] == "104233"
    assert not any(r.fault or r.header for r in found)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_rows_of_a_table_as_the_csv_module_reads_them(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)
    text = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    expected = list(csv.reader(io.StringIO(text.decode(), newline=""), delimiter="\t" if "tsv" in name else ","))
    found = list(read(path))
    assert [r.texts for r in found] == [tuple(cell for cell in row if cell) for row in expected]
    assert [r.row for r in found] == [1, 2, 4, 5]
    assert [r.header for r in found] == [True, False, False, False]
    assert b"".join(r.raw for r in found if isinstance(r.raw, bytes)) == text


@pytest.mark.parametrize("sign", ",;\t|")
def test_the_header_shows_what_stands_between_cells(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'name{sign}note\n"Ann"{sign}"one, two; three"\n')
    assert [(r.texts, r.fault) for r in read(path)][1] == (("Ann", "one, two; three"), None)


def test_dates_and_bytes_of_parquet(tmp_path: Path) -> None:
    rows = [{"born": datetime.date(1984, 3, 12), "raw": b"Marta", "picture": b"\xff\xd8\xff"}]
    (record,) = read(write(tmp_path / "a.parquet", rows))
    assert (record.texts, record.others) == (("Marta",), ("1984-03-12",))


def test_a_row_that_cannot_be_read_is_text_with_its_line_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": "x"}\n\n{"a": "Mar\n{"a": "Z\xfcrich"}\n{"a": "y"}')
    found = list(read(path))
    assert [(r.row, r.texts) for r in found] == [
        (1, ("x",)), (3, ('{"a": "Mar\n',)), (4, ('{"a": "Zürich"}\n',)), (5, ("y",)),
    ]  # fmt: skip
    assert [r.fault and r.fault.split("(")[0].strip() for r in found] == [
        None, "it is not JSON", "it is not UTF-8: byte 9 is 0xfc", None,
    ]  # fmt: skip
    table = tmp_path / "a.csv"
    table.write_bytes(b'name,note\nAnn,"one"two\nZ\xfcrich,y\nBen,z\n')
    faults = [(r.row, r.text, bool(r.fault)) for r in read(table)]
    assert faults == [
        (1, "name\nnote", False), (2, 'Ann,"one"two\n', True), (3, "Zürich,y\n", True), (4, "Ben\nz", False),
    ]  # fmt: skip


def test_a_deeply_nested_line_does_not_end_the_search(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 100_000 + '\n"Ann"\n')
    assert [(r.row, r.fault) for r in read(path)] == [(1, "it is nested too deeply"), (2, None)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "is not UTF-8 text, since it holds zero bytes; save it as UTF-8"),
        ("a.jsonl.gz", b"not gzip", "cannot be read .*; give a whole file"),
        ("a.parquet", b"PAR1 but no more", "cannot be read as Parquet .*; write the file again"),
        ("a.docx", b"", "is not a training file that can be read; choose from .jsonl, .ndjson, .csv, .tsv, .parquet"),
    ],
)
def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.* {message}"):
        list(read(tmp_path / name))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([["Ann"], ["Ben"]], names=["x", "x"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a.parquet' has two columns named 'x'; rename one of them"):
        list(read(tmp_path / "a.parquet"))


def test_folders_give_training_files_in_order_and_name_the_rest(tmp_path: Path) -> None:
    for name in ("b.csv", "a/c.jsonl", "readme.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = training_files([tmp_path, tmp_path / "b.csv"])
    assert [f.name for f in found.files] == ["c.jsonl", "b.csv"]
    assert [f.name for f in found.unread] == ["readme.md"]
    with pytest.raises(UserError, match="there is no file or folder .*gone"):
        training_files([tmp_path / "gone"])


def test_lines_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i} " * 500}) + "\n" for i in range(5000)))
    tracemalloc.start()
    assert sum(1 for _ in read(path)) == 5000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 10_000_000
    assert peak < 1_000_000


def test_one_large_row_group_is_streamed(tmp_path: Path) -> None:
    rows = pa.table({"text": [f"{i} " * 10_000 for i in range(2000)]})
    path = tmp_path / "a.parquet"
    pq.write_table(rows, path, row_group_size=2000, compression="none", use_dictionary=False)
    size, before = rows.nbytes, pa.total_allocated_bytes()
    peaks = [pa.total_allocated_bytes() - before for _ in parquet_batches(path)]
    assert size > 80_000_000
    assert len(peaks) > 1
    assert max(peaks) < size


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.csv.gz", "a.parquet"])
def test_what_is_kept_stays_as_it_was(tmp_path: Path, name: str) -> None:
    source, target = write(tmp_path / name, ROWS), tmp_path / f"kept-{name}"

    def keep(record: Record) -> bool:
        return "Łódź" not in record.texts

    copy_kept(source, target, keep)
    if name.endswith("parquet"):
        whole = pq.read_table(source)
        assert pq.read_table(target).equals(whole.take([0, 2]))
        assert pq.read_schema(target).equals(whole.schema)
    else:
        unfold = gzip.decompress if name.endswith("gz") else bytes
        lines = unfold(source.read_bytes()).split(b"\n")
        assert unfold(target.read_bytes()).split(b"\n") == [line for line in lines if "Łódź".encode() not in line]
    with pytest.raises(UserError, match="must end as"):
        copy_kept(source, tmp_path / "a.txt", keep)
