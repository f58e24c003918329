"""The command that writes a case file to start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.console import Console
from rich.markup import escape

from .._util.errors import UserError
from ..knowledge.draft import Sources, folders_outside, new_case
from ..knowledge.formats import FORMATS
from ..knowledge.item import Kind
from ..knowledge.kinds import KINDS
from ..knowledge.schema import Purpose

FILE = "a file, or a hub id as owner/name:config:split"


def new(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.")],
    forget: Annotated[str, typer.Option("--forget", help=f"What is to be forgotten: {FILE}.")],
    out: Annotated[Path, typer.Option("--out", help="The case file to write; it must not exist.")],
    retain: Annotated[str, typer.Option("--retain", help="What must be kept; with --where, the other rows.")] = "",
    retain_format: Annotated[str, typer.Option("--retain-format", help="The format of --retain, if another.")] = "",
    twins: Annotated[str, typer.Option("--twins", help="What the model was never taught, in the same format.")] = "",
    corpus: Annotated[str, typer.Option("--corpus", help="Passages to edit on; --forget then only judges.")] = "",
    kind: Annotated[str, typer.Option("--kind", help=f"One of {', '.join(KINDS)}, if columns do not tell it.")] = "",
    where: Annotated[list[str], typer.Option("--where", help="Forget only the rows with COLUMN=VALUE.")] = [],  # noqa: B006
    text: Annotated[str, typer.Option("--text", help="The column of the text of passages.")] = "",
    subject: Annotated[str, typer.Option("--subject", help="The column of whom a row is about.")] = "",
    question: Annotated[str, typer.Option("--question", help="The column of the question.")] = "",
    answer: Annotated[str, typer.Option("--answer", help="The column of the answer.")] = "",
    field: Annotated[list[str], typer.Option("--field", help="The column of any field: FIELD=COLUMN.")] = [],  # noqa: B006
    purpose: Annotated[str, typer.Option("--purpose", help=f"One of {', '.join(get_args(Purpose))}.")] = "",
    name: Annotated[str, typer.Option("--name", help="The case's name; the file's name by default.")] = "",
) -> None:
    """Write a case file from a benchmark's files or your own, with comments that say what to change."""
    columns = {"text": text, "subject": subject, "question": question, "answer": answer}
    columns |= dict(_pair(each, "--field") for each in field)
    sources = Sources(
        format,
        forget,
        retain=retain,
        twins=twins,
        corpus=corpus,
        retain_format=retain_format,
        kind=cast(Kind, kind) if kind else None,
        fields={name: column for name, column in columns.items() if column},
        where=_values(where),
    )
    path = new_case(sources, out, name=name, purpose=_purpose(purpose))
    console = Console()
    console.print(escape(f"{path}: read its comments, and change what you like."), highlight=False, soft_wrap=True)
    named = "".join(f" --data {folder}" for folder in folders_outside(sources, path.parent))
    console.print(escape(f"Next: loka run {path}{named} --out DIR"), highlight=False, soft_wrap=True)


def _pair(text: str, option: str) -> tuple[str, str]:
    """The two sides of NAME=VALUE."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name and equals and value):
        raise UserError(f"{option} {text!r} has no two sides; write {option} NAME=VALUE.")
    return name, value


def _values(filters: Sequence[str]) -> dict[str, str | list[str]]:
    """The value of each column that a filter names, or its values where it is named again."""
    found: dict[str, list[str]] = {}
    for column, value in (_pair(each, "--where") for each in filters):
        found.setdefault(column, []).append(value)
    return {column: values if len(values) > 1 else values[0] for column, values in found.items()}


def _purpose(name: str) -> Purpose | None:
    if name and name not in get_args(Purpose):
        raise UserError(f"{name!r} is not a purpose; choose one of {', '.join(get_args(Purpose))}.")
    return cast(Purpose, name) if name else None
