"""Rows of a data set on the hub."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .._util.errors import UserError
from .read_parquet import MOST_ROWS, without_nan


def read_hub(name: str, config: str | None, split: str | None) -> list[dict[str, Any]]:
    """The rows of one split of a data set on the hub. Nulls and NaN become None.

    Raises:
        UserError: the package `datasets` is not installed, no split is named, the hub cannot be reached or has no such
            data set, or the split has more than 5,000,000 rows.
    """
    if importlib.util.find_spec("datasets") is None:
        raise UserError(
            f"there is no data file {name!r}, and reading it from the hub needs the package datasets; "
            "install that (`pip install datasets`), or give a local file."
        )
    if split is None:
        raise UserError(f"which split of {name!r}? Name one, such as split: train.")
    import datasets

    try:
        with _quiet("huggingface_hub"):
            found = datasets.load_dataset(name, config, split=split)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{name!r} cannot be read from the hub ({reason}); give a local file.") from error
    if len(found) > MOST_ROWS:
        raise UserError(
            f"{name!r} has {len(found):,} rows; {MOST_ROWS:,} are the most that can be read. "
            f"Name a part of the split, such as {split}[:1000]."
        )
    return [without_nan(dict(row)) for row in found]


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Without the warnings of a logger; the hub's say at length what the error says in a sentence."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
