"""A table is what it was when it was written, and no larger than its reader believes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loka._util import table
from loka._util.errors import UserError


def test_it_reads_back(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.array([1, None], "Int64")})
    found, metadata = table.read(table.write(tmp_path / "a.parquet", frame, {"kind": "odd"}), "odd", "Nobody")
    pd.testing.assert_frame_equal(found, frame)
    assert metadata == {"kind": "odd"}


def test_a_small_file_with_millions_of_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    rows = pa.table({"n": np.zeros(20_000_000, np.int8)}).replace_schema_metadata({"loka": '{"kind": "odd"}'})
    pq.write_table(rows, path, compression="zstd")
    assert path.stat().st_size < 10**5
    with pytest.raises(UserError, match=r"it has 20,000,000 rows; 5,000,000 are the most that can be read"):
        table.read(path, "odd", "Nobody")


def test_a_small_file_with_gigabytes_of_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    group = pa.table({"n": ["x" * 100_000] * 64}).replace_schema_metadata({"loka": '{"kind": "odd"}'})
    with pq.ParquetWriter(path, group.schema, compression="zstd") as writer:
        for _ in range(100):
            writer.write_table(group)
    assert path.stat().st_size < 10**5
    with pytest.raises(UserError, match="it holds more than 536,870,912 bytes"):
        table.read(path, "odd", "Nobody")


def test_a_changed_page_is_noticed(tmp_path: Path) -> None:
    path = table.write(tmp_path / "a.parquet", pd.DataFrame({"a": np.arange(1000.0)}), {"kind": "odd"})
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"is not a odd \(.*CRC"):
        table.read(path, "odd", "Nobody")
