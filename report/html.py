"""One self-contained page about a run: no network, no scripts, and nothing in it that was not escaped."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from .._util.files import write_atomic
from ..verify import Reading
from . import figures
from . import formats as shown
from .folder import RunFolder
from .pictures import save
from .texts import BADGES, CAPTIONS, DOES_NOT_MEAN, MEANS

TEMPLATE = Path(__file__).with_name("template.html")


class Shown(NamedTuple):
    """A figure as the page shows it."""

    name: str
    source: str
    caption: str


class Row(NamedTuple):
    """A line of the table of before and after, ready to print."""

    name: str
    before: str
    after: str
    change: str
    random: str
    shallow: str


def write(folder: Path) -> Path:
    """Write `report.html` and `figures/*.svg|png` from the files of a run folder; returns the page's path.

    What has not been run or measured yet is said in its place.

    Raises:
        UserError: a folder with neither a localization nor a verdict, or with a file that cannot be read.
    """
    folder = Path(folder)
    run = RunFolder.read(folder)
    pictures = [_save(folder / "figures", name, figure) for name, figure in _figures(run)]
    template = TEMPLATE.read_text(encoding="utf-8")
    page = _environment().from_string(template).render(_contents(run), pictures=pictures)
    write_atomic(folder / "report.html", page)
    return folder / "report.html"


def _environment() -> Environment:
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {
        "share": shown.share,
        "number": shown.number,
        "count": shown.count,
        "seconds": shown.seconds,
        "small": shown.small,
    }
    return made


def _figures(run: RunFolder) -> Iterator[tuple[str, Figure]]:
    """Every figure for which the data are there."""
    if run.verdict:
        yield "before_after", figures.before_after(run.verdict["summary"])
    if found := run.recoveries:
        yield "recovery", figures.recovery(found)
    after = run.after
    if _measured(after, "relearn"):
        yield "relearning", figures.relearning(run.readings)
    if _measured(after, "probe"):
        yield "probe", figures.probe(after["probe"])
    if run.localization is not None:
        yield "localization", run.localization.plot()
    if run.check and run.check.get("points"):
        yield "agreement", figures.agreement(run.check["points"], run.check.get("rank_correlation"))


def _save(folder: Path, name: str, figure: Figure) -> Shown:
    """Both files of a figure, and how the page shows it."""
    svg = save(folder, name, figure)
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    return Shown(name, source, CAPTIONS[name])


def _contents(run: RunFolder) -> dict[str, Any]:
    """Everything that the template prints."""
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
        "done": list(_done(run)),
        "summary": verdict.get("summary", {}),
        "rows": _rows(run) if run.verdict else [],
        "readings": list(run.after.values()),
        "subjects": _subjects(run),
        "best": _best(run),
        "check": run.check,
        "provenance": run.provenance,
        "digests": verdict.get("digests") or run.provenance.get("digests", {}),
        "cost": verdict.get("cost"),
        "next": _next(run, arguments),
    }


def _next(run: RunFolder, arguments: Mapping[str, Any]) -> str:
    """The command that goes on from here."""
    case, model = arguments.get("case", "CASE"), arguments.get("model", "M")
    whole = f"loka run {case} --model {model} --out {run.path}"
    return whole if run.edit else f"loka ablate {run.path}, then {whole}"


def _done(run: RunFolder) -> Iterator[tuple[str, str]]:
    """What was done, as names and values."""
    summary = (run.verdict or {}).get("summary", {})
    if summary.get("facts_total") is not None:
        known = shown.count(summary.get("facts_known"))
        yield "Facts the original knows", f"{known} of {shown.count(summary['facts_total'])}"
    if located := run.localization:
        about = located.about
        yield "Sites scored", shown.counted(Counter(located.frame["part"]))
        forget, retain = (shown.count(about.get(name)) for name in ("n_forget", "n_retain"))
        yield "Facts located on", f"{forget} to forget, {retain} to keep"
    yield from _edit(run, summary)
    if relearn := run.after.get("relearn"):
        details = relearn.details
        if details:
            attack = f"{details['steps']} steps at learning rate {details['lr']:g}, {details['folds']} folds"
            yield "Relearning attack, frozen at", attack


def _edit(run: RunFolder, summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if run.edit is None:
        yield "Edited model", str(run.provenance.get("arguments", {}).get("after") or "none in this folder")
        return
    sites = run.edit.sites
    yield "Edit", f"{run.edit.method or 'unnamed'} on {shown.sites(sites)}"
    if summary.get("edited_parameters") is not None:
        share = shown.share(summary.get("edited_share"), digits=2)
        yield "Weights edited", f"{shown.count(summary['edited_parameters'])} ({share} of all)"
    yield "Settings of the edit", shown.plain(run.edit.arguments) or "none"


def _rows(run: RunFolder) -> list[Row]:
    """Original, edited model and controls side by side."""
    s = run.verdict["summary"] if run.verdict else {}
    return [
        _shares("Facts to forget, answered", s, "forget", s.get("random_forget_after"), s.get("shallow_forget_after")),
        _shares("Facts to keep, same relation", s, "retain_same", s.get("random_retain_same_after")),
        _shares("Facts to keep, other relations", s, "retain_other", s.get("random_retain_other_after")),
        _perplexity(s.get("perplexity_before"), s.get("perplexity_after"), s.get("random_perplexity_after")),
        Row(
            "Held-out answers after relearning, mean probability", shown.number(s.get("relearn_original")),
            shown.number(s.get("relearn_target")), "", shown.number(s.get("relearn_random")),
            shown.number(s.get("relearn_shallow")),
        ),
        Row(
            "… on the r scale (0 never taught, 1 intact)", shown.MISSING if s.get("relearn_r") is None else "1",
            shown.bounded(s.get("relearn_r"), s.get("relearn_r_low"), s.get("relearn_r_high")), "",
            shown.number(s.get("random_relearn_r")), shown.number(s.get("shallow_r")),
        ),
    ]  # fmt: skip


def _shares(
    name: str, summary: Mapping[str, Any], group: str, random: float | None, shallow: float | None = None
) -> Row:
    before, after = summary.get(f"{group}_before"), summary.get(f"{group}_after")
    change = shown.points(before, after)
    return Row(name, shown.share(before), shown.share(after), change, shown.share(random), shown.share(shallow))


def _perplexity(before: float | None, after: float | None, random: float | None) -> Row:
    values = (shown.number(v) for v in (before, after, random))
    first, second, third = values
    change = shown.percent_change(before, after)
    return Row("Perplexity of neutral text", first, second, change, third, shown.MISSING)


def _subjects(run: RunFolder) -> list[tuple[str, list[str]]]:
    """Each subject's answers before and after, and its probability after relearning."""
    columns = [("before", "recall"), ("after", "recall"), ("before", "relearn"), ("after", "relearn")]
    held = [_samples(run.frozen.get(model, {}).get(check)) for model, check in columns]
    prints = (shown.share, shown.share, shown.number, shown.number)
    return [(name, [show(samples.get(name)) for show, samples in zip(prints, held, strict=True)]) for name in held[1]]


def _samples(reading: Reading | None) -> dict[str, float]:
    return reading.samples.get("forget", {}) if reading else {}


def _best(run: RunFolder, k: int = 5) -> list[dict[str, Any]]:
    """The best sites of each part."""
    if run.localization is None:
        return []
    frame = run.localization.to_frame().sort_values("score", ascending=False, kind="stable")
    best = frame.groupby("part", sort=False).head(k).sort_values("part", kind="stable")
    rows: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in best.to_dict("records")]
    return [{**row, "site": shown.site(row["layer"], row["part"], row["index"])} for row in rows]


def _measured(checks: Mapping[str, Reading], check: str) -> bool:
    return check in checks and checks[check].value is not None
