"""Read training files as a stream of records: JSON Lines, CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from .._util.errors import UserError
from .._util.files import digest

LONGEST = 2**26  # bytes of a line, or of a CSV row over several lines
BATCH = 2**25  # bytes of Parquet rows that are decoded at a time, about
MOST_ROWS = 1024  # Parquet rows that are decoded at a time


class Record(NamedTuple):
    """One row of a training file.

    Attributes:
        file: where it stands.
        row: the line on which it begins; in Parquet, the row. Both count from 1.
        texts: all string values, nested ones too, in the order of the file.
        others: numbers, truth values and dates as text, and the keys of nested objects.
        raw: the bytes of its line or lines, or the row of a Parquet file.
        fault: what is wrong with a row that could not be read; `texts` then holds the row as it stands.
        header: whether it is the header of a CSV file.
    """

    file: Path
    row: int
    texts: tuple[str, ...]
    others: tuple[str, ...]
    raw: bytes | dict[str, Any]
    fault: str | None = None
    header: bool = False

    @property
    def text(self) -> str:
        """All string values, one after another."""
        return "\n".join(self.texts)

    @property
    def everything(self) -> str:
        """All values that can be searched, one after another."""
        return "\n".join(self.texts + self.others)


def read(path: str | Path) -> Iterator[Record]:
    """The records of a training file, in order. Blank lines are skipped. Memory: one record, or one small batch.

    Raises:
        UserError: another kind of file, one that cannot be read, or a line of more than 64 MiB. A single row that
            cannot be read is a record with a `fault`.
    """
    return reader_of(Path(path))(Path(path))


def reader_of(path: Path) -> Callable[[Path], Iterator[Record]]:
    """How to read this file, by its name.

    Raises:
        UserError: no format has this name.
    """
    if (suffix := kind_of(path)) is None:
        raise UserError(f"{str(path)!r} is not a training file that can be read; choose from {', '.join(READERS)}.")
    return READERS[suffix]


def kind_of(path: Path) -> str | None:
    """The suffix of a training file, in lower case and without `.gz`; `None` for other files."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    return suffix if suffix in READERS and not (suffix == ".parquet" and name.endswith(".gz")) else None


class TrainingFiles(NamedTuple):
    """Files to search, and files beside them that have no format that can be read."""

    files: tuple[Path, ...]
    unread: tuple[Path, ...]


def training_files(sources: Iterable[str | Path]) -> TrainingFiles:
    """The training files among files and folders, each once, in order.

    Raises:
        UserError: a source that does not exist, or a named file of another kind.
    """
    files: dict[Path, Path] = {}
    unread: dict[Path, Path] = {}
    for source in map(Path, sources):
        if not source.exists():
            raise UserError(f"there is no file or folder {str(source)!r}; name the training data.")
        if not source.is_dir():
            reader_of(source)
        found = sorted(f for f in source.rglob("*") if f.is_file()) if source.is_dir() else [source]
        for file in found:
            (unread if kind_of(file) is None else files).setdefault(file.resolve(), file)
    return TrainingFiles(tuple(files.values()), tuple(unread.values()))


def checksum(path: Path) -> str:
    """The SHA-256 of a training file, in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return digest(path)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({_reason(error)}); give a whole file.") from error


def is_packed(path: Path) -> bool:
    """Whether a text file is compressed by gzip, by its name."""
    return path.suffix.lower() == ".gz"


def read_jsonl(path: Path) -> Iterator[Record]:
    """One record a line; a line may hold any JSON value."""
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            yield Record(path, number, *_values(value), line)
        except (ValueError, RecursionError) as error:
            yield _broken(path, number, line, _reason(error))


def read_csv(path: Path) -> Iterator[Record]:
    """One record a row, after the header. A row may span lines. The header shows what stands between the cells."""
    table = _Table(path)
    cells = csv.reader(table, delimiter=_delimiter(path), strict=True)
    header = True
    while True:
        try:
            with _any_length():
                row, fault = next(cells), table.fault
        except StopIteration:
            return
        except csv.Error as error:
            row, fault = [], f"it is not CSV ({error})"
        number, raw = table.take()
        if fault:
            yield _broken(path, number, raw, fault)
        elif row:
            yield Record(path, number, tuple(c for c in row if c), (), raw, None, header)
        header = header and not row and not fault


def read_parquet(path: Path) -> Iterator[Record]:
    """One record a row, decoded a small batch at a time."""
    for _, records in parquet_batches(path):
        yield from records


def parquet_batches(path: Path) -> Iterator[tuple[pa.RecordBatch, list[Record]]]:
    """Batches of a Parquet file with their records.

    Raises:
        UserError: it is not Parquet, or a part of it cannot be read.
    """
    row = 1
    try:
        # a buffer keeps memory at pages; without it, a whole row group is read at once
        with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            _check_columns(path, file.schema_arrow.names)
            for batch in file.iter_batches(_rows_at_a_time(file.metadata)):
                rows = batch.to_pylist()
                yield batch, [Record(path, row + i, *_values(values), values) for i, values in enumerate(rows)]
                row += len(rows)
    except (OSError, ValueError, pa.ArrowException) as error:
        place = f"row {row} or later of {str(path)!r}" if row > 1 else repr(str(path))
        raise UserError(f"{place} cannot be read as Parquet ({_reason(error)}); write the file again.") from error


def _check_columns(path: Path, names: list[str]) -> None:
    """Refuse two columns of one name: only one of them would be searched."""
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{str(path)!r} has two columns named {repeated[0]!r}; rename one of them.")


def _rows_at_a_time(metadata: pq.FileMetaData) -> int:
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return max(1, min(MOST_ROWS, BATCH * metadata.num_rows // max(size, 1)))


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}


def _delimiter(path: Path) -> str:
    """The one of four signs that the header has most of; a comma if it has none."""
    header = next((line for _, line in _lines(path)), b"").decode("utf-8", "replace")
    return max(",;\t|", key=header.count)


class _Table:
    """The lines of a CSV file as text. It keeps the bytes of the row that is being read."""

    def __init__(self, path: Path) -> None:
        self._lines = _lines(path)
        self._pending: list[bytes] = []
        self._first = 1
        self._size = 0
        self.fault: str | None = None

    def __iter__(self) -> _Table:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        self._first = self._first if self._pending else number
        self._pending.append(line)
        self._size += len(line)
        if self._size > LONGEST:
            raise csv.Error(f"a quote is open for more than {LONGEST:,} bytes")
        try:
            return line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            self.fault = _reason(error)
            return line.decode("cp1252", "replace")

    def take(self) -> tuple[int, bytes]:
        """The first line and the bytes of the row that ends here. The next one begins after it."""
        taken = self._first, b"".join(self._pending)
        self._pending, self._size, self.fault = [], 0, None
        return taken


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines with their ends."""
    try:
        with gzip.open(path) if is_packed(path) else open(path, "rb") as file:
            _check_text(path, file)
            number = 0
            while line := file.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise UserError(
                        f"line {number} of {str(path)!r} is longer than {LONGEST:,} bytes; give one record a line."
                    )
                yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{str(path)!r} cannot be read ({_reason(error)}); give a whole file.") from error


def _check_text(path: Path, file: BinaryIO | gzip.GzipFile) -> None:
    """Refuse UTF-16 and binary files."""
    start = file.read(4096)
    file.seek(0)
    if b"\0" in start:
        raise UserError(f"{str(path)!r} is not UTF-8 text, since it holds zero bytes; save it as UTF-8.")


def _broken(path: Path, number: int, raw: bytes, fault: str) -> Record:
    """A row that cannot be read, as plain text. Windows-1252 is what it is if it is not UTF-8, most often."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")
    return Record(path, number, (text,), (), raw, fault)


def _values(value: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The string values and the others. The keys of the outermost object name columns, so they are left out."""
    texts: list[str] = []
    others: list[str] = []
    for part in value.values() if isinstance(value, dict) else (value,):
        _collect(part, texts, others)
    return tuple(texts), tuple(others)


def _collect(value: object, texts: list[str], others: list[str]) -> None:
    if isinstance(value, str):
        if value:
            texts.append(value)
    elif isinstance(value, dict):
        others += map(str, value)
        for part in value.values():
            _collect(part, texts, others)
    elif isinstance(value, list | tuple):
        for part in value:
            _collect(part, texts, others)
    elif isinstance(value, bytes):
        with suppress(UnicodeDecodeError):  # pictures and the like hold no text
            texts.append(value.decode())
    elif value is not None:
        # customer numbers of a column with gaps are floats in Parquet
        others.append(str(int(value)) if isinstance(value, float) and value.is_integer() else str(value))


def _reason(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8: byte {error.start + 1} is 0x{error.object[error.start]:02x}"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON ({error.msg}, column {error.colno})"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]


@contextmanager
def _any_length() -> Iterator[None]:
    """Let a cell be as long as a line may be. The limit belongs to the whole process, so it is put back."""
    before = csv.field_size_limit(LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)
