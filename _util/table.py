"""Tables and their metadata, in one Parquet file each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from .errors import UserError
from .files import atomic, parse_json

KEY, SEAL = b"loka", b"loka-seal"
MOST_ROWS = 5_000_000
LARGEST = 2**29  # bytes of a decoded table
BATCH = 4096  # rows that are decoded at a time


def write(path: str | Path, frame: pd.DataFrame, metadata: Mapping[str, JsonValue]) -> Path:
    """Write a table and its metadata, whole or not at all. `metadata["kind"]` says what the table is."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), KEY: json.dumps(dict(metadata)).encode()})
    table = table.replace_schema_metadata({**table.schema.metadata, SEAL: _seal(table.schema, table.num_rows)})
    with atomic(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)
    return Path(path)


def read(path: str | Path, kind: str, writer: str) -> tuple[pd.DataFrame, dict[str, JsonValue]]:
    """Read a table and its metadata.

    Args:
        kind: what the file must be, such as `circuit` or `localization`.
        writer: the call or command that writes such a file, for the error message.

    Raises:
        UserError: no such file, a file of another kind, one that has changed since it was written, or one with more
            than 5,000,000 rows or 512 MiB.
    """
    try:
        table, text = _read(Path(path))
        metadata = parse_json(text)
        found = metadata.get("kind")
    except Exception as error:  # a mangled file may fail anywhere in pyarrow and pandas, by any error
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{str(path)!r} is not a {kind} ({reason}); {writer} writes one.") from error
    if found is None:
        raise UserError(f"{str(path)!r} names no kind of table, so an older version wrote it; {writer} makes one.")
    if found != kind:
        raise UserError(f"{str(path)!r} is not a {kind} but a {str(found)[:80]}; {writer} writes one.")
    return table, metadata


def _read(path: Path) -> tuple[pd.DataFrame, str]:
    """The table and the text of its metadata; sizes are checked while it is decoded."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        found = file.schema_arrow.metadata or {}
        metadata = found[KEY].decode()
        if file.metadata.num_rows > MOST_ROWS:
            raise ValueError(f"it has {file.metadata.num_rows:,} rows; {MOST_ROWS:,} are the most that can be read")
        batches, size = [], 0
        for batch in file.iter_batches(BATCH):
            batches.append(batch)
            size += batch.nbytes
            if size > LARGEST:
                raise ValueError(f"it holds more than {LARGEST:,} bytes")
        if SEAL in found and found[SEAL] != _seal(file.schema_arrow, sum(map(len, batches))):
            raise ValueError("it has changed since it was written")
        return pa.Table.from_batches(batches, file.schema_arrow).to_pandas(), metadata


def _seal(schema: pa.Schema, rows: int) -> bytes:
    """The digest of what describes a table; Parquet itself checks the pages that hold it."""
    columns = [(field.name, str(field.type)) for field in schema]
    about = {k: v for k, v in (schema.metadata or {}).items() if k in (KEY, b"pandas")}
    return hashlib.sha256(repr((columns, rows, sorted(about.items()))).encode()).hexdigest().encode()
