"""Rows of a data file in any of its formats, or of a data set on the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .._util.errors import UserError
from .read_hub import read_hub
from .read_parquet import read_parquet
from .read_text import read_csv, read_json

Row = Mapping[str, Any]
READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".json": read_json,
    ".jsonl": read_json,
    ".json.gz": read_json,
    ".jsonl.gz": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".csv.gz": read_csv,
    ".tsv.gz": read_csv,
    ".parquet": read_parquet,
}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def rows(source: str | Path, *, config: str | None = None, split: str | None = None) -> list[Row]:
    """All rows of a local file, or of a data set on the hub.

    Args:
        source: a file whose name ends in one of `READERS`, or a hub id such as `locuslab/TOFU`, which needs the
            package `datasets`. JSON may be an array or one object per line, whatever the name says.
        config, split: those of a data set on the hub, which needs a split.

    Raises:
        UserError: no such file or data set, one that cannot be read, or one without rows.
    """
    found: list[Any] = read_hub(str(source), config, split) if is_hub_id(source) else _file(source, config, split)
    if not found:
        raise UserError(f"{str(source)!r} holds no rows; give a file with at least one.")
    for number, row in enumerate(found, 1):
        if not isinstance(row, Mapping):
            raise UserError(
                f"row {number} of {str(source)!r} is not an object with named fields but {_shape(row)}; fix that row."
            )
    return found


def is_hub_id(source: str | Path) -> bool:
    """Whether a source can only be a data set on the hub: `owner/name`, with no such file or folder here.

    What ends like a data file, or stands in a folder that exists, is a file.
    """
    name = str(source)
    here = os.path.exists(name) or os.path.isdir(os.path.dirname(name)) or _suffix(name) is not None
    return bool(HUB_ID.fullmatch(name)) and not here


def field(source: str | Path, number: int, row: Row, *names: str) -> Any:
    """The first of several fields that a row has. `number`: the row's place in its file, from 1.

    Raises:
        UserError: it has none of them.
    """
    for name in names:
        if row.get(name) is not None:
            return row[name]
    has = ", ".join(map(str, row))
    raise UserError(f"row {number} of {str(source)!r} has no {' or '.join(names)} (it has {has}); fix that row.")


def _file(source: str | Path, config: str | None, split: str | None) -> list[Any]:
    path, suffix = Path(source), _suffix(source)
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        raise UserError(f"the data file {str(source)!r} {what}; give a file that ends in {', '.join(READERS)}.")
    if suffix is None:
        raise UserError(f"{str(source)!r} is not a data file by its name; it must end in {', '.join(READERS)}.")
    if config or split:
        raise UserError(f"{str(source)!r} is a local file, so it has no config and no split; leave these out.")
    return READERS[suffix](path)


def _suffix(source: str | Path) -> str | None:
    return next((suffix for suffix in READERS if str(source).lower().endswith(suffix)), None)


def _shape(row: Any) -> str:
    shapes = {list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    return next((shape for kind, shape in shapes.items() if isinstance(row, kind)), "a number")
