"""Copy a training file without some of its records. What is kept stays as it was, byte for byte or value for value."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from .._util.errors import UserError
from .records import Record, is_packed, kind_of, parquet_batches, read, reader_of

GROUP = 2**26  # bytes of a row group, about


def copy_kept(source: Path, target: Path, keep: Callable[[Record], bool]) -> None:
    """Write the records of `source` that are to be kept to `target`, in order. Blank lines go.

    Lines stay as they are, with their encoding and ends. Parquet keeps its schema and compression. Memory: a batch.

    Raises:
        UserError: as `read`, or the target's name is of another format.
    """
    reader_of(source)
    if kind_of(source) != kind_of(target) or is_packed(source) != is_packed(target):
        raise UserError(f"{str(target)!r} must end as {str(source)!r} does; name it so.")
    (_copy_parquet if kind_of(source) == ".parquet" else _copy_lines)(source, target, keep)


def _copy_lines(source: Path, target: Path, keep: Callable[[Record], bool]) -> None:
    with open(target, "wb") as file, _packing(file) if is_packed(target) else file as out:
        for record in read(source):
            if keep(record):
                assert isinstance(record.raw, bytes)
                out.write(record.raw)


def _packing(file: IO[bytes]) -> gzip.GzipFile:
    """Compresses into a file. Without a name and a time, the same records give the same bytes."""
    return gzip.GzipFile("", "wb", 6, file, mtime=0)


def _copy_parquet(source: Path, target: Path, keep: Callable[[Record], bool]) -> None:
    with pq.ParquetFile(source) as file:
        schema, compression = file.schema_arrow, _compression(file.metadata)
    with pq.ParquetWriter(target, schema, compression=compression) as out:
        group: list[pa.RecordBatch] = []
        for batch, records in parquet_batches(source):
            group.append(batch.filter(pa.array([keep(r) for r in records], pa.bool_())))
            if sum(part.nbytes for part in group) > GROUP:
                out.write_table(pa.Table.from_batches(group, schema))
                group = []
        out.write_table(pa.Table.from_batches(group, schema))


def _compression(metadata: pq.FileMetaData) -> str:
    """That of the first column. Files without rows have none."""
    named = metadata.num_row_groups and metadata.num_columns and metadata.row_group(0).column(0).compression.lower()
    return "none" if named == "uncompressed" else named or "snappy"
