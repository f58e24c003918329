"""The commands of `loka erase`: erasure requests, their deadlines and their audit trail."""

from __future__ import annotations

from datetime import date, datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import erasure
from .._util.errors import LokaError
from ..erasure import Register, Request, assessment, overview, steps, upkeep, write_page
from ..erasure.impact import kept_impact
from ..erasure.overview import Line
from .late import Late


class Erase(Late):
    """The commands that edit and audit a model import torch; the others of `loka erase` do not."""

    def others(self) -> typer.Typer:
        app = typer.Typer()
        import_module(".erase_model", __package__).erase_model(app)
        return app


erase = typer.Typer(
    cls=Erase, no_args_is_help=True, help="Handle requests for erasure: log, keep deadlines, prove what was done."
)
out = Console()

Folder = Annotated[
    Path | None,
    typer.Option("--register", envvar="LOKA_REGISTER", help="The register's folder; one under your data by default."),
]
Keys = Annotated[
    Path | None,
    typer.Option("--keys", envvar="LOKA_KEYS", help="The folder of its keys; the register's with -keys by default."),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="A request, such as ER-2026-0001.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, without naming the person.")]

SHOWN_BY = {
    "asking": "So it was found when the model was asked.",
    "the officer": "So --shows says, whatever `assess` found.",
    "nobody": "It was not asked: loka erase assess --model.",
}
COLOURS = {"overdue": "bold red", "soon": "yellow", "fine": "green", "ended": "dim"}


@erase.command()
def new(
    file: Annotated[Path, typer.Argument(metavar="REQUEST.yaml", help="The request; docs/erasure.md shows one.")],
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Log a request, and set its deadline."""
    with steps.register_for(file, register, keys) as opened:
        request = steps.receive(opened, file)
    _say(f"{request.id}: logged as {request.pseudonym}.", request)
    _say(f"Delete {file}, which names the person: the register keeps what is needed, encrypted.")


@erase.command()
def identify(
    id: Id,
    how: Annotated[str, typer.Option("--how", help="How the identity was verified; no copies of documents.")],
    on: Annotated[datetime | None, typer.Option("--on", formats=["%Y-%m-%d"], help="The day; else today.")] = None,
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Note that the person's identity was verified."""
    with Register(register, keys=keys) as opened:
        request = steps.identify(opened, id, how, on=on.date() if on else None)
    _say(f"{id}: the identity is verified.", request)


@erase.command()
def status(
    html: Annotated[Path | None, typer.Option("--html", help="Also write the register page to this file.")] = None,
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """List all requests by days left. Exit status 1 if one is overdue."""
    with Register(register, keys=keys) as opened:
        requests = opened.requests()
    lines = overview(requests, date.today())
    out.print(_table(lines))
    if html:
        out.print(escape(f"{write_page(requests, html)}: open it in a browser."), highlight=False, soft_wrap=True)
    if late := [line.request.id for line in lines if line.level == "overdue"]:
        Console(stderr=True).print(f"overdue: {', '.join(late)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


@erase.command()
def extend(
    id: Id,
    reason: Reason,
    months: Annotated[int, typer.Option("--months", help="By how many further months: 1 or 2.")] = 2,
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Extend a deadline, once, within the first month. Tell the person at the same time."""
    with Register(register, keys=keys) as opened:
        request = steps.extend(opened, id, months, reason)
    _say(f"{id}: extended by {months} month{'s' if months > 1 else ''}.", request)


@erase.command()
def choose(
    id: Id,
    impact: Annotated[Path | None, typer.Option("--impact", help="The impact; by default, what `assess` kept.")] = None,
    records: Annotated[int | None, typer.Option("--records", help="The person's records, without --impact.")] = None,
    shows: Annotated[
        str,
        typer.Option(
            "--shows", help="nothing, something or unknown, in place of what the model showed when `assess` asked it."
        ),
    ] = "",
    training_data: Annotated[
        bool | None,
        typer.Option("--training-data/--no-training-data", help="Is it at hand? With --impact, yes."),
    ] = None,
    shards: Annotated[bool, typer.Option("--shards", help="The model was trained in shards that are at hand.")] = False,
    stakes: Annotated[str, typer.Option("--stakes", help="normal, or high, such as for health data.")] = "normal",
    method: Annotated[
        str, typer.Option("--method", help="Overrule the rules with one of the methods of docs/erasure.md.")
    ] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why it is overruled, without naming the person.")] = "",
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Choose a method by the rules of docs/erasure.md, and freeze its recipe."""
    with Register(register, keys=keys) as opened:
        kept = records is None and impact is None and kept_impact(opened.folder, id)
        found = erasure.choice.read_situation(
            assessment.impact_of(opened, id) if kept else impact,
            records=records, shows=shows, training_data=training_data, shards=shards, stakes=stakes,
        )  # fmt: skip
        request = erasure.choose(opened, id, found, method=method, reason=reason)
    assert request.chosen
    _say(f"What the model shows of the person: {found.shows}. {SHOWN_BY[found.shown_by]}")
    by = f"instead of {request.chosen.recommended}" if method else f"by the rule '{request.chosen.rule}'"
    _say(
        f"{id}: {request.method}, {by}. {erasure.ERASURE_METHODS[request.method].does} {request.chosen.reason}", request
    )


@erase.command()
def document(
    id: Id,
    to: Annotated[Path, typer.Option("--out", help="The folder of the documents.")],
    verdict: Annotated[Path | None, typer.Option("--verdict", help="The verdict.json of the run.")] = None,
    impact: Annotated[Path | None, typer.Option("--impact", help="The impact; by default, what `assess` kept.")] = None,
    templates: Annotated[
        Path | None, typer.Option("--templates", help="A folder with files that replace those of erasure/templates.")
    ] = None,
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Write the documents of a request as HTML, PDF and JSON: report, reply, notice, paragraph, risk, what is open."""
    with Register(register, keys=keys) as opened:
        impact = impact or kept_impact(opened.folder, id)
        case = erasure.CaseFile.of(opened, id, impact=impact, verdict=verdict)
        sources = {what: path for what, path in (("impact", impact), ("verdict", verdict)) if path}
        files = erasure.write_documents(opened, case, to, templates=templates, sources=sources)
    for file in files:
        if file.suffix == ".html":
            _say(f"{file} (also .pdf and .json)")
    _say("Fill in what stands in square brackets, and read all of it, before you send anything.")
    if case.finding and not case.finding.plain.reply:
        _say(f"No reply was written: {case.finding.plain.found}")


@erase.command()
def refuse(id: Id, reason: Reason, register: Folder = None, keys: Keys = None) -> None:
    """Refuse a request, with the reason under Art. 17(3) or 12(5)."""
    with Register(register, keys=keys) as opened:
        steps.refuse(opened, id, reason)
    _say(f"{id}: refused. Tell the person why, and of the right to complain.")


@erase.command()
def close(id: Id, reason: Reason, register: Folder = None, keys: Keys = None) -> None:
    """Close a request, and delete its person from the register."""
    with Register(register, keys=keys) as opened:
        steps.close(opened, id, reason)
    _say(f"{id}: closed; its person was deleted from the register.")


@erase.command()
def audit(
    restored: Annotated[
        str, typer.Option("--restored", metavar="REASON", help="Go on from a backup that lacks the last entries.")
    ] = "",
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Verify the audit trail, and name the first entry that was touched. Exit status 1 if there is one."""
    with Register(register, keys=keys) as opened:
        if restored:
            upkeep.accept_restore(opened, restored)
        fault, entries = opened.verify(), opened.entries()
        restores = [] if fault else upkeep.restores(opened)
    if fault:
        raise LokaError(f"the trail was touched: {fault}; restore the register from a backup, and find out who did it.")
    for lost in restores:
        _say(f"Entry {lost.first} tells of entries {lost.first} to {lost.last}, which a backup lacked: {lost.reason}")
    last = f" The hash of the last: {entries[-1].hash}" if entries else ""
    _say(f"Entries of the trail: {len(entries)}. None was touched.{last}")


@erase.command()
def purge(
    id: Annotated[str, typer.Argument(metavar="[ID]", help="Only this request.")] = "",
    keep_years: Annotated[
        int | None, typer.Option("--keep-years", help="Delete whole requests that ended more years ago than this.")
    ] = None,
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Delete the persons of executed and ended requests from the register; the trail stays verifiable."""
    with Register(register, keys=keys) as opened:
        expired = upkeep.expire(opened, keep_years) if keep_years is not None else []
        gone = upkeep.purge(opened, id)
    _say(f"Persons deleted: {', '.join(gone) or 'none'}.")
    if keep_years is not None:
        _say(f"Requests deleted: {', '.join(expired) or 'none'}.")


@erase.command()
def rotate(register: Folder = None, keys: Keys = None) -> None:
    """Make new keys, and put all that is still encrypted under them."""
    with Register(register, keys=keys) as opened:
        persons = upkeep.rotate(opened)
        folder = opened.keys_folder
    _say(f"{folder}: new keys; persons under them: {persons}. Keep the old ones: they verify older entries.")


def _table(lines: list[Line]) -> Table:
    table = Table()
    for label in ("days left", "due", "request", "person", "received", "status"):
        table.add_column(label, no_wrap=label in ("request", "person"))
    for line in lines:
        request, colour = line.request, COLOURS[line.level]
        due = f"{request.due}{' (extended)' if request.extension else ''}"
        table.add_row(
            f"[{colour}]{line.words}[/]", due, request.id, request.pseudonym, f"{request.received}", request.status
        )
    return table


def _say(text: str, request: Request | None = None) -> None:
    due = f" Due on {request.due}: {overview([request], date.today())[0].words}." if request else ""
    out.print(escape(text + due), highlight=False, soft_wrap=True)
