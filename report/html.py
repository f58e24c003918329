"""One self-contained page about a run: no network, no scripts, everything escaped."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined, UndefinedError
from matplotlib.figure import Figure

from .._util.errors import UserError
from .._util.files import write_atomic
from ..audit.controls import CONTROLS, Control
from ..audit.summary import Column
from ..verify import Reading, Summary
from ..verify.check import Check
from ..verify.checks import CHECKS
from . import figures, formats
from .examples import examples
from .folder import RunFolder
from .pictures import save
from .scores import benchmark_tables
from .texts import BADGES, CAPTIONS, DOES_NOT_MEAN, MEANS
from .words import Words

TEMPLATE = Path(__file__).with_name("template.html")
NAMED = ("answers",)  # the settings of an edit that quote the items


class PageFigure(NamedTuple):
    """A figure of the page: its name, its source as a data URL, its caption."""

    name: str
    source: str
    caption: str


class Row(NamedTuple):
    """A row of the table of before and after, ready to print; `controls` in the order of their table."""

    name: str
    before: str
    after: str
    change: str
    controls: tuple[str, ...]


class RowKind(NamedTuple):
    """How a number of every model becomes a row: its label, field of `Column`, format, and the format of a change."""

    label: str
    field: str
    form: Callable[[float | None], str]
    change: Callable[[float | None, float | None], str] | None = None


def row_kinds(words: Words) -> list[RowKind]:
    """The rows of the table of before and after."""
    shares = [RowKind(label, field, formats.share, formats.points) for field, label in words.labels.items()]
    return [
        *shares,
        RowKind("Perplexity of neutral text", "perplexity", formats.number, formats.percent_change),
        RowKind("Held-out answers after relearning, mean probability", "relearn", formats.number),
    ]


def write(
    folder: Path,
    *,
    checks: Sequence[Check] = CHECKS,
    controls: Sequence[Control] = CONTROLS,
    redact: bool = False,
) -> Path:
    """Write `report.html` and `figures/*.svg|png` from the files of a run folder; returns the page's path.

    The page names each stage that has not run and each number that was not measured.

    Args:
        checks, controls: the tables that the readings belong to.
        redact: give items by number, and leave out prompts, answers, what the model said, and the names of units.
            A folder that was made with `--redact` has a redacted report always.

    Raises:
        UserError: a folder with neither a localization nor a verdict, a file that cannot be read or that has changed
            since it was finished, or readings of a check or a control that the tables lack.
    """
    folder = Path(folder)
    run = RunFolder.read(folder, checks=checks, controls=controls)
    redact = redact or bool(run.provenance.get("arguments", {}).get("redacted"))
    try:
        pictures = [_save(folder / "figures", name, figure) for name, figure in _figures(run)]
        template = TEMPLATE.read_text(encoding="utf-8")
        page = _environment().from_string(template).render(_contents(run, redact), pictures=pictures)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, UndefinedError) as error:
        if "files" in run.provenance:
            raise  # the files are what stages wrote, so the fault is in the report
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"the files of {str(folder)!r} do not fit together ({reason}); run the command that made them again, with "
            "another --out."
        ) from error
    write_atomic(folder / "report.html", page)
    return folder / "report.html"


def _environment() -> Environment:
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {
        "share": formats.share,
        "number": formats.number,
        "count": formats.count,
        "seconds": formats.seconds,
        "small": formats.small,
    }
    return made


def _figures(run: RunFolder) -> Iterator[tuple[str, Figure]]:
    """Every figure that has data."""
    looks = figures.looks(run.controls)
    if run.verdict:
        yield "before_after", figures.before_after(run.columns, looks, run.words)
    if found := run.recoveries:
        yield "recovery", figures.recovery(found, looks)
    after = run.after
    if _measured(after, "relearn"):
        yield "relearning", figures.relearning(run.readings, looks)
    if _measured(after, "probe"):
        yield "probe", figures.probe(after["probe"])
    if run.localization is not None:
        yield "localization", run.localization.plot()
    if run.check and run.check.get("points"):
        yield "agreement", figures.agreement(run.check["points"], run.check.get("rank_correlation"))


def _save(folder: Path, name: str, figure: Figure) -> PageFigure:
    """Write both files of a figure."""
    svg = save(folder, name, figure)
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    return PageFigure(name, source, CAPTIONS[name])


def _contents(run: RunFolder, redact: bool) -> dict[str, Any]:
    """All values that the template prints."""
    verdict = run.verdict or {}
    arguments = run.provenance.get("arguments", {})
    outcome = verdict.get("outcome", "pending")
    return {
        "case": run.case.get("name") or arguments.get("case") or "unnamed case",
        "purpose": run.case.get("purpose"),
        "model": arguments.get("model") or arguments.get("before") or (run.edit and run.edit.model) or "unnamed model",
        "profile": arguments.get("profile"),
        "verdict": run.verdict,
        "badge": BADGES.get(outcome, BADGES["pending"]),
        "means": MEANS.get(outcome, ()),
        "does_not_mean": DOES_NOT_MEAN if run.verdict else (),
        "done": list(_done(run, redact)),
        "summary": run.summary,
        "words": run.words,
        "redact": redact,
        "examples": examples(run.readings, redact=redact),
        "benchmarks": benchmark_tables(verdict),
        "tasks": run.tasks,
        "labels": [c.label for c in run.controls],
        "rows": _rows(run.columns, run) if run.verdict else [],
        "readings": list(run.after.values()),
        "subjects": _subjects(run, redact),
        "best": _best(run),
        "check": run.check,
        "provenance": run.provenance,
        "digests": verdict.get("digests") or run.provenance.get("digests", {}),
        "cost": verdict.get("cost"),
        "next": _next(run, arguments),
    }


def _next(run: RunFolder, arguments: Mapping[str, Any]) -> str:
    """The next command."""
    case, model = arguments.get("case", "CASE"), arguments.get("model", "M")
    whole = f"loka run {case} --model {model} --out {run.path}"
    return whole if run.edit else f"loka ablate {run.path}, then {whole}"


def _done(run: RunFolder, redact: bool) -> Iterator[tuple[str, str]]:
    """The section on what was done, as names and values."""
    summary = run.summary
    if summary.facts_total is not None:
        known = formats.count(summary.facts_known)
        yield f"{run.words.things.capitalize()} the original knows", f"{known} of {formats.count(summary.facts_total)}"
    if located := run.localization:
        yield "Sites scored", formats.counted(Counter(located.frame["part"]))
        forget, retain = (formats.count(n) for n in (located.record.n_forget, located.record.n_retain))
        yield f"{run.words.things.capitalize()} located on", f"{forget} to forget, {retain} to keep"
    yield from _edit(run, summary, redact)
    if relearn := run.after.get("relearn"):
        details = relearn.details
        if details:
            attack = f"{details['steps']} steps at learning rate {details['lr']:g}, {details['folds']} folds"
            yield "Relearning attack, frozen at", attack


def _edit(run: RunFolder, summary: Summary, redact: bool) -> Iterator[tuple[str, str]]:
    if run.edit is None:
        yield "Edited model", str(run.provenance.get("arguments", {}).get("after") or "none in this folder")
        return
    sites = run.edit.sites
    yield "Edit", f"{run.edit.method or 'unnamed'} on {formats.sites(sites or None)}"
    if summary.edited_parameters is not None:
        share = formats.share(summary.edited_share, digits=2)
        yield "Weights edited", f"{formats.count(summary.edited_parameters)} ({share} of all)"
    settings = {k: v for k, v in run.edit.arguments.items() if not (redact and k in NAMED)}
    if isinstance(config := settings.get("config"), Mapping):
        del settings["config"]
        settings.update(config)
    yield "Settings of the edit", formats.plain(settings) or "none"


def _rows(columns: Mapping[str, Column], run: RunFolder) -> list[Row]:
    """Original, edited model and controls side by side; the last row is r, which is 1 on the original by definition."""
    before, after, *controls = columns.values()
    s, r = run.summary, after.r
    return [
        *(_row(kind, before, after, controls) for kind in row_kinds(run.words)),
        Row(
            "… on the r scale (0 never taught, 1 intact)", formats.MISSING if r is None else "1",
            formats.bounded(r, s.relearn_r_low, s.relearn_r_high), "",
            tuple(formats.number(c.r) for c in controls),
        ),
    ]  # fmt: skip


def _row(kind: RowKind, before: Column, after: Column, controls: Sequence[Column]) -> Row:
    first, second, *others = (getattr(c, kind.field) for c in (before, after, *controls))
    change = kind.change(first, second) if kind.change else ""
    return Row(kind.label, kind.form(first), kind.form(second), change, tuple(kind.form(v) for v in others))


def _subjects(run: RunFolder, redact: bool) -> list[tuple[str, list[str]]]:
    """Each unit's recall before and after the edit, and its probabilities after relearning."""
    columns = [("before", "recall"), ("after", "recall"), ("before", "relearn"), ("after", "relearn")]
    readings = run.at_common_budget
    by_column = [_samples(readings.get(model, {}).get(check)) for model, check in columns]
    forms = (formats.share, formats.share, formats.number, formats.number)
    return [
        (f"unit {i}" if redact else name, [form(of.get(name)) for form, of in zip(forms, by_column, strict=True)])
        for i, name in enumerate(by_column[1], 1)
    ]


def _samples(reading: Reading | None) -> dict[str, float]:
    return reading.samples.get("forget", {}) if reading else {}


def _best(run: RunFolder, k: int = 5) -> list[dict[str, Any]]:
    """The best sites of each part."""
    if run.localization is None:
        return []
    order = {"general": True, "score": False}
    frame = run.localization.to_frame().sort_values(list(order), ascending=list(order.values()), kind="stable")
    best = frame.groupby("part", sort=False).head(k).sort_values("part", kind="stable")
    rows: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in best.to_dict("records")]
    site = run.localization.site
    return [{**row, "site": str(site(int(row["layer"]), row["part"], int(row["index"])))} for row in rows]


def _measured(checks: Mapping[str, Reading], check: str) -> bool:
    return check in checks and checks[check].value is not None
