"""Rows of a data file in any of its formats, or of a data set on the hub."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._util.errors import UserError

Row = Mapping[str, Any]
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")


def rows(source: str | Path, *, config: str | None = None, split: str | None = None) -> list[Row]:
    """All rows of a local file, or of a data set on the hub.

    Args:
        source: a file that ends in .json, .jsonl (an array, or one object per line, whichever of the two it is; also
            with .gz) or .parquet, or a hub id such as `locuslab/TOFU`, which needs the package `datasets`.
        config, split: those of a data set on the hub, which needs a split.

    Raises:
        UserError: no such file or data set, or one without rows.
    """
    path = Path(source)
    if path.is_file():
        found = _parquet(path) if path.suffix == ".parquet" else _json(path)
    elif str(source).endswith(SUFFIXES) or str(source).count("/") != 1:
        raise UserError(f"there is no data file {str(source)!r}; give one that ends in {', '.join(SUFFIXES)}.")
    else:
        found = _hub(str(source), config, split)
    if not found:
        raise UserError(f"{str(source)!r} holds no rows; give a file with at least one.")
    return found


def field(source: str | Path, number: int, row: Row, *names: str) -> Any:
    """The first of several fields that a row has.

    Raises:
        UserError: it has none of them.
    """
    for name in names:
        if isinstance(row, Mapping) and row.get(name) is not None:
            return row[name]
    has = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
    raise UserError(f"row {number + 1} of {str(source)!r} has no {' or '.join(names)} (it has {has}); fix that row.")


def _json(path: Path) -> list[Row]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"the data file {str(path)!r} cannot be read ({error}).") from error
    try:
        whole = json.loads(text)
        return whole if isinstance(whole, list) else [whole]
    except json.JSONDecodeError:
        return [_line(path, number, line) for number, line in enumerate(text.splitlines()) if line.strip()]


def _line(path: Path, number: int, line: str) -> Row:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"line {number + 1} of {str(path)!r} is not JSON ({error.msg}); fix that line.") from error


def _parquet(path: Path) -> list[Row]:
    import pandas as pd

    try:
        return [{str(k): v for k, v in row.items()} for row in pd.read_parquet(path).to_dict("records")]
    except (OSError, ValueError) as error:
        raise UserError(f"the data file {str(path)!r} cannot be read ({error}).") from error


def _hub(name: str, config: str | None, split: str | None) -> list[Row]:
    if importlib.util.find_spec("datasets") is None:
        raise UserError(
            f"there is no data file {name!r}, and reading it from the hub needs the package datasets; "
            "install that (`pip install datasets`), or give a local file."
        )
    if split is None:
        raise UserError(f"which split of {name!r}? Name one, such as split='train'.")
    import datasets

    try:
        return [dict(row) for row in datasets.load_dataset(name, config, split=split)]
    except Exception as error:
        raise UserError(f"{name!r} could not be read from the hub ({error}); give a local file.") from error
