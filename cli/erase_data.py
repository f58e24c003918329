"""The commands of `loka erase` about training data: what a request touches, and what stays out of the next training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import erasure
from .._util.errors import UserError
from .._util.files import write_json
from ..erasure import Impact, Register, assessment, held_back
from ..erasure.model_impact import SAMPLE, ModelImpact
from ..erasure.plain_model import ModelFinding
from .bars import Bars
from .erase import Folder, Id, Keys
from .erase import out as console

MOST = 100  # hits that are printed
Data = Annotated[
    list[Path], typer.Option("--data", help="A training file or a folder of them; give it again for more.")
]
Field = Annotated[str, typer.Option("--field", help="The column with the text; by default all values of a record.")]
Subject = Annotated[str, typer.Option("--subject", help="The column with the name of whom a record is about.")]
Device = Annotated[str, typer.Option("--device", help="Where the model runs: cpu, cuda, cuda:1, mps.")]
Numbers = Annotated[list[int] | None, typer.Option(metavar="N", help="The number of a hit; give it again for more.")]


def erase_data(erase: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (assess, confirm, exclude):
        erase.command()(command)


def assess(
    id: Id,
    data: Data,
    folder: Annotated[
        list[Path] | None, typer.Option("--folder", help="Where models, adapters, exports and copies are kept.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="Also ask this model what it shows: smollm2, a model folder, or a hub id.")
    ] = "",
    holdout: Annotated[
        list[Path] | None,
        typer.Option("--holdout", help="With --model: records of the same kind that it was never taught; repeatable."),
    ] = None,
    field: Field = "",
    subject: Subject = "",
    sample: Annotated[
        int, typer.Option("--sample", min=1, help="Ask about at most so many records of each group.")
    ] = SAMPLE,
    file: Annotated[Path | None, typer.Option("--out", help="Also write the impact to this JSON file.")] = None,
    device: Device = "cpu",
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Find the person's records in training data, and what may have been made from these; ask a model what it shows."""
    if bool(model) != bool(holdout):
        given, lacks = ("--model", "--holdout") if model else ("--holdout", "--model")
        raise UserError(f"{given} needs {lacks}: a model is asked about never-taught records, too, for comparison.")
    material = erasure.material.Material(tuple(data), tuple(holdout or ()), field, subject) if model else None
    if material:
        erasure.field_values.check_columns(material)
    with Register(register, keys=keys) as opened:
        found = assessment.assess(opened, id, data, folder or ())
        kept = assessment.path_of(opened, id)
        if material and found.found().records:
            with Bars() as bars:
                found = erasure.asking.ask(opened, id, model, material, sample=sample, device=device, progress=bars)
    if file:
        write_json(file, found.to_json(), private=True)
    _show(id, found)
    if found.model:
        _show_model(id, found.model)
    say(f"{kept}: the impact, without names and texts. Say of hits that are wrong: loka erase confirm {id} --not N")


def confirm(
    id: Id,
    yes: Numbers = None,
    no: Annotated[list[int] | None, typer.Option("--not", metavar="N", help="Not the person's; repeatable.")] = None,
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Say of hits, by their number, whether the record is the person's."""
    if both := set(yes or ()) & set(no or ()):
        raise UserError(f"hit {min(both)} is given as --yes and as --not; give one of them.")
    with Register(register, keys=keys) as opened:
        before = assessment.impact_of(opened, id)
        found = assessment.confirm(opened, id, dict.fromkeys(yes or (), True) | dict.fromkeys(no or (), False))
    _show(id, found)
    if before.model and not found.model:
        say(f"{id}: the model was asked about other records than now count; give `loka erase assess --model` again.")


def exclude(
    data: Data,
    out: Annotated[Path | None, typer.Option("--out", help="A new file or folder for the filtered data.")] = None,
    add: Annotated[
        str, typer.Option("--add", metavar="ID", help="Put this request's person and records on the list.")
    ] = "",
    drop_broken: Annotated[bool, typer.Option("--drop-broken", help="Leave out rows that cannot be read.")] = False,
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Filter training data by the exclusion list, and put people on the list."""
    if bool(out) == bool(add):
        raise UserError("give --out to filter the data, or --add to put the request of these data on the list.")
    if out and len(data) > 1:
        raise UserError(f"{len(data)} sources cannot become one {str(out)!r}; give one --data a command, or a folder.")
    with Register(register, keys=keys) as opened:
        if out is None:
            n = held_back.add_to_exclusions(opened, add, data)
            return say(f"{add}: {opened.request(add).pseudonym} is on the exclusion list, with {_records(n)}.")
        made = held_back.hold_back(opened, data[0], out, drop_broken=drop_broken)
    for pseudonym, rules in made.held_back.items():
        say(f"{pseudonym}: {_records(sum(rules.values()))} held back.")
    total, left = _records(made.records), made.left or "none"
    say(f"{out}: {made.excluded} of {total} held back. The same search finds {left} left.")


def say(text: str) -> None:
    """Print a sentence as it is."""
    console.print(escape(text), highlight=False, soft_wrap=True)


def _show(id: str, found: Impact) -> None:
    """Print the hits, how many records count, and what may have been made from the data."""
    ours, total = found.found(), found.total
    if not found.hits:
        say(f"{id}: no record of the person was found in {_records(total.records)}.")
    else:
        _print(("hit", "file", "row", "rule", "found", "confidence", "confirmed"), [
            (i, h.file, h.row, h.rule, h.reason, h.confidence, {None: "", True: "yes", False: "no"}[h.confirmed])
            for i, h in enumerate(found.hits[:MOST], 1)
        ])  # fmt: skip
        more = f" The table has the first {MOST} hits of {len(found.hits)}." if len(found.hits) > MOST else ""
        say(
            f"{id}: {ours.records} of {_records(total.records)} count as the person's, "
            f"{ours.tokens} of {total.tokens} {found.unit} ({found.share():.2%}).{more}"
        )
    if found.artefacts:
        _print(("artefact", "kind"), [(a.path, a.kind) for a in found.artefacts])
    if found.unread:
        say(f"Files that cannot be searched: {len(found.unread)}; the first is {found.unread[0]}.")
    if broken := [file for file in found.files if file.broken]:
        say(f"{broken[0].file}: {broken[0].first_broken}; rows that cannot be read were searched as plain text.")


def _show_model(id: str, model: ModelImpact) -> None:
    """Print what the model shows, measure by measure, and why that is something or nothing."""
    found = ModelFinding.of(model)
    rows = [(row.label, row.person, row.never, row.lead, row.others) for row in found.rows]
    _print(("the model", "the person's", "never taught", "difference", "others'"), rows)
    for each in found.refused:
        say(f"Not measured: {each}")
    say(f"{id}: {found.plain} {found.why} {found.scope} ({model.passes:,} forward passes of one row.)")


def _print(heads: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    table = Table(*heads)
    for row in rows:
        table.add_row(*map(str, row))
    Console(markup=False).print(table)


def _records(n: int) -> str:
    return f"{n} record{'' if n == 1 else 's'}"
