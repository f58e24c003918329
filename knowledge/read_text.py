"""Rows of text files: JSON, JSON Lines, CSV and TSV, each also compressed by gzip."""

from __future__ import annotations

import csv
import gzip
import io
import json
import reprlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._util.errors import UserError
from .texts import BOM

LARGEST = 2**30  # bytes of a file, unfolded if it is compressed
CHUNK = 2**20


def read_json(path: Path) -> list[Any]:
    """The rows of a JSON file: the elements of an array, one object on each line, or a single object.

    NaN and infinities, which JSON does not have, become None.

    Raises:
        UserError: not UTF-8, not JSON, too large, or nested too deeply.
    """
    text = read_text(path)
    first = next((line for line in text.split("\n") if line.strip()), "").strip()
    if not first:
        return []
    if first[0] not in "[{":
        raise UserError(
            f"{str(path)!r} is plain text, not JSON: it begins with {reprlib.repr(first)}; give a file with an array "
            "of objects, or with one object on each line."
        )
    if first.startswith("[") or not _is_json(first):
        whole = _parsed(path, text, "")
        return whole if isinstance(whole, list) else [whole]
    lines = enumerate(text.split("\n"), 1)
    return [_parsed(path, line, f"line {number} of ") for number, line in lines if line.strip()]


def read_csv(path: Path) -> list[dict[str, str | None]]:
    """The rows of a CSV or TSV file with a header row. All values are text; empty cells become None.

    Raises:
        UserError: not UTF-8, too large, a header with repeated names, or a row with more cells than the header.
    """
    delimiter = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
    with _any_length():
        reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
        try:
            table = [cells for cells in reader if cells]
        except csv.Error as error:
            raise UserError(f"line {reader.line_num} of {str(path)!r} is not CSV ({error}); fix that line.") from error
    header = _header(path, table[0], delimiter) if table else []
    return [_row(path, header, number, cells) for number, cells in enumerate(table[1:], 1)]


def read_text(path: Path) -> str:
    """The whole text of a UTF-8 file without its byte order mark, unfolded if its name ends in .gz.

    Raises:
        UserError: it cannot be read, is not UTF-8, or holds over 1 GiB; what is compressed is refused while it unfolds.
    """
    try:
        data = _unfolded(path) if path.suffix.lower() == ".gz" else _plain(path)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(path)!r} cannot be read ({reason}); give a whole file that you may read.") from error
    try:
        return data.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{str(path)!r} is not UTF-8: byte {error.start + 1}, on line {line}, is 0x{data[error.start]:02x}; "
            "save it as UTF-8."
        ) from error


def too_large(path: Path) -> UserError:
    """The error for a file that holds more than is believed."""
    return UserError(f"{str(path)!r} holds more than {LARGEST:,} bytes; divide it into smaller files.")


def _plain(path: Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise too_large(path)
    return path.read_bytes()


def _unfolded(path: Path) -> bytes:
    """The unfolded bytes; they are counted first, so that a file that grows without end takes no memory."""
    size = 0
    with gzip.open(path) as file:
        while part := file.read(CHUNK):
            size += len(part)
            if size > LARGEST:
                raise too_large(path)
    with gzip.open(path) as file:
        return file.read(LARGEST)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(path: Path, text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if where else f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{where}{str(path)!r} is not JSON ({error.msg}, {place}); fix that place.") from error
    except ValueError as error:
        raise UserError(f"{where}{str(path)!r} cannot be read as JSON ({error}); fix that place.") from error
    except RecursionError:
        raise UserError(f"{where}{str(path)!r} is nested too deeply; give rows that are plain objects.") from None


@contextmanager
def _any_length() -> Iterator[None]:
    """Let a cell be as long as the file; by default, the csv module refuses passages of over 128 KiB."""
    before = csv.field_size_limit(LARGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _header(path: Path, cells: list[str], delimiter: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"the header of {str(path)!r} names {repeated[0]!r} twice; rename one of the two columns.")
    if len(names) == 1 and any(other in names[0] for other in ",;\t"):
        between = "commas" if delimiter == "," else "tabs"
        raise UserError(f"{str(path)!r} has the single column {names[0]!r}; save it with {between} between columns.")
    return names


def _row(path: Path, header: list[str], number: int, cells: list[str]) -> dict[str, str | None]:
    if len(cells) > len(header):
        raise UserError(
            f"row {number} of {str(path)!r} has {len(cells)} cells, but the header names {len(header)} columns; "
            "put quotes around the cell with a delimiter in it."
        )
    padded = [*cells, *[""] * (len(header) - len(cells))]
    return {name: cell if cell.strip() else None for name, cell in zip(header, padded, strict=True)}
