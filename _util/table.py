"""A table with what it is about, in one Parquet file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import UserError
from .files import atomic


def write(path: str | Path, frame: pd.DataFrame, about: dict[str, Any]) -> Path:
    """Write both, whole or not at all."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"loka": json.dumps(about).encode()})
    with atomic(path) as temporary:
        pq.write_table(table, temporary)
    return Path(path)


def read(path: str | Path, kind: str, writer: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read both back.

    Args:
        kind: what the file should be, `circuit` or `localization`.
        writer: what writes such a file.

    Raises:
        UserError: no such file, or one of another kind.
    """
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[b"loka"])
    except (OSError, pa.ArrowInvalid, KeyError, json.JSONDecodeError) as error:
        raise UserError(f"{str(path)!r} is no {kind} ({error}); {writer} writes one.") from error
    if (found := "circuit" if "circuit" in about else "localization") != kind:
        raise UserError(f"{str(path)!r} is no {kind} but a {found}; {writer} writes one.")
    return table.to_pandas(), about
