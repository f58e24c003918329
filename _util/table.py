"""Tables and their metadata, in one Parquet file each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from .errors import UserError
from .files import atomic


def write(path: str | Path, frame: pd.DataFrame, metadata: Mapping[str, JsonValue]) -> Path:
    """Write a table and its metadata, whole or not at all. `metadata["kind"]` says what the table is."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    loka = {b"loka": json.dumps(dict(metadata)).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **loka})
    with atomic(path) as temporary:
        pq.write_table(table, temporary)
    return Path(path)


def read(path: str | Path, kind: str, writer: str) -> tuple[pd.DataFrame, dict[str, JsonValue]]:
    """Read a table and its metadata.

    Args:
        kind: what the file must be, such as `circuit` or `localization`.
        writer: the call or command that writes such a file, for the error message.

    Raises:
        UserError: no such file, or a file of another kind.
    """
    try:
        table = pq.read_table(path)
        metadata = json.loads((table.schema.metadata or {})[b"loka"])
        found = metadata.get("kind")
    except (OSError, pa.ArrowInvalid, KeyError, AttributeError, json.JSONDecodeError) as error:
        raise UserError(f"{str(path)!r} is not a {kind} ({error}); {writer} writes one.") from error
    if found is None:
        raise UserError(f"{str(path)!r} names no kind of table, so an older version wrote it; {writer} makes one.")
    if found != kind:
        raise UserError(f"{str(path)!r} is not a {kind} but a {found}; {writer} writes one.")
    return table.to_pandas(), metadata
