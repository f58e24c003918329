"""The values of fields that stand in a record's text, each with the text up to it, so that a model can be asked."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..knowledge.kinds.passage import WINDOW, words_of
from ..model import Prompt
from .material import Material, passages
from .records import Record, read, training_files

LONGEST = 8  # words of a value; what is longer is a text and no field


@dataclass(frozen=True)
class FieldValue:
    """A value, the name of its column (empty in files without names), and the text before it."""

    column: str
    before: str
    value: str


def field_values(material: Material, texts: Collection[str]) -> dict[str, tuple[FieldValue, ...]]:
    """The field values of the records with these texts, by text. Cost: one pass over the data and the holdout."""
    found: dict[str, tuple[FieldValue, ...]] = {}
    for path in training_files([*material.data, *material.holdout]).files:
        for record in read(path):
            for passage in passages(material, [record]):
                if passage.text in texts and passage.text not in found:
                    found[passage.text] = tuple(values_in(passage.text, columns_of(record)))
    return found


def check_columns(material: Material) -> None:
    """Refuse files whose first records lack the columns, before anything expensive.

    Raises:
        UserError: such a file, or one that does not exist or cannot be read.
    """
    for path in training_files([*material.data, *material.holdout]).files:
        next(passages(material, read(path)), None)


def columns_of(record: Record) -> Iterator[tuple[str, str]]:
    """The names and values of a record's columns, without nested ones; without names where the file has none."""
    try:
        row = json.loads(record.raw) if isinstance(record.raw, bytes) else record.raw
    except ValueError:
        row = None
    if not isinstance(row, dict):
        yield from (("", value) for value in record.texts)
        return
    for name, value in row.items():
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            yield name, str(value)


def values_in(text: str, columns: Iterator[tuple[str, str]]) -> Iterator[FieldValue]:
    """The values that stand in a text as whole words, but not at its beginning, where nothing could ask for them."""
    for column, value in columns:
        if value.strip() != value or len(value) < 2 or value == text or len(words_of(value)) > LONGEST:
            continue
        starts = [start for start, _ in Prompt.spot(text, value).slots if text[:start].strip()]
        if starts:
            yield FieldValue(column, _end(text[: starts[0]]), value)


def _end(before: str) -> str:
    """The last words of a text, so that they fit any model's context. A line break at the end stays."""
    space = before[len(before.rstrip()) :]
    return ("".join(words_of(before)[-WINDOW:]) + space).rstrip(" ")
