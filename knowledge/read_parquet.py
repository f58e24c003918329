"""Rows of Parquet files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .._util.errors import UserError
from .read_text import LARGEST, too_large

MOST_ROWS = 5_000_000
BATCH = 1024  # rows that are decoded at a time


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file. List columns become lists; nulls and NaN become None.

    Raises:
        UserError: not Parquet, more than 5,000,000 rows by its metadata, or more than 1 GiB once decoded.
    """
    try:
        with pq.ParquetFile(path) as file:
            return _rows(path, file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{str(path)!r} cannot be read as Parquet ({_short(error)}); write it again.") from error


def _rows(path: Path, file: pq.ParquetFile) -> list[dict[str, Any]]:
    if file.metadata.num_rows > MOST_ROWS:
        raise UserError(
            f"{str(path)!r} has {file.metadata.num_rows:,} rows; {MOST_ROWS:,} are the most that can be read. "
            "Divide it into smaller files."
        )
    names = file.schema_arrow.names
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{str(path)!r} has two columns named {repeated[0]!r}; rename one of them.")
    found, size = [], 0
    for batch in file.iter_batches(BATCH):
        size += batch.nbytes
        if size > LARGEST:
            raise too_large(path)
        found += map(without_nan, batch.to_pylist())
    return found


def without_nan(value: Any) -> Any:
    """The value with None in the place of NaN, in lists and objects too."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: without_nan(v) for key, v in value.items()}
    return [without_nan(v) for v in value] if isinstance(value, list) else value


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
