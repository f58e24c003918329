"""What the rows of `bench.methods` say together: paired differences, a table, a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from loka.verify.judge.statistics import interval

Row = dict[str, Any]
Made = tuple[str, str]  # by a method, on a choice of sites
SITES = ("located", "frequent", "random", "layers", "all", "shallow", "own")
PAIRS = [(ours, s) for ours in ("located", "frequent") for s in ("random", "layers", "all", "located") if s != ours]
DEFAULT: Made = ("runs", "located")
BASELINES = ("random", "all", "own")
PLAIN: Made = ("runs, plain", "located")
KEPT = {
    "same probability": "same relation kept", "same answered": "same relation answered",
    "other probability": "other relations kept",
}  # fmt: skip
MEASURES = {"forget probability": "forgotten, left", **KEPT, "relearned": "back after relearning"}
TITLES = {
    "forget probability": "forgotten facts\nleft, sealed prompts", "same probability": "same relation\nkept",
    "other probability": "other relations\nkept", "relearned": "back after\nrelearning (r)",
}  # fmt: skip
LOOKS = {
    "located": ("#0072b2", "o"), "frequent": ("#009e73", "s"), "random": ("#d98200", "^"), "layers": ("#cc79a7", "v"),
    "all": ("#555555", "D"), "shallow": ("#b2182b", "x"), "own": ("#56b4e9", "P"),
}  # fmt: skip


def pooled(rows: Sequence[Row], method: str, sites: str, measure: str) -> dict[tuple[str, str], float]:
    """By case and subject, the median over the seeds that reached the mark, on a scale where the original is 1.

    `relearned` is r, 0 where twins are that were never taught. What is kept is 1 and the change, so that its interval
    is that of the change; of what is forgotten, 0 is 0.
    """
    out = {}
    for case in dict.fromkeys(r["settings"]["case"] for r in _cells(rows)):
        some = [r for r in _of(rows, case, method, sites, measure) if r["settings"].get("reached", True)]
        own = _of(rows, case, "original", "none", measure)[0]["samples"]
        zero, one = _scale(rows, case, measure)
        for subject in some[0]["samples"] if some else ():
            value = np.median([r["samples"][subject] for r in some])
            out[case, subject] = 1 + (value - own[subject]) / one if measure in KEPT else (value - zero) / (one - zero)
    return out


def paired(rows: Sequence[Row]) -> list[Row]:
    """Located, either way, less other choices of sites; what runs do by default less others that locate nothing.

    Over the subjects of the cases where both reached the mark.
    """
    out = []
    for name, ours, theirs in _compared(rows):
        for measure, title in MEASURES.items():
            mine, others = (pooled(rows, *cell, measure) for cell in (ours, theirs))
            both = [k for k in mine if k in others]
            if not both:
                continue
            values = np.array([mine[k] - others[k] for k in both])
            low, high = interval(values)
            out.append({
                "name": f"{title}, {name}", "value": float(values.mean()),
                "low": low, "high": high, "unit": "share", "n": len(values),
                "settings": {"method": ours[0], "cases": sorted({c for c, _ in both})},
            })  # fmt: skip
    return out


def _compared(rows: Sequence[Row]) -> Iterator[tuple[str, Made, Made]]:
    for method in _methods(rows):
        for located, control in PAIRS:
            yield f"{method}: {located} - {control}", (method, located), (method, control)
    for method, sites in _pairs(rows):
        if (method != DEFAULT[0] and sites in BASELINES) or (method, sites) == PLAIN:
            yield f"{' '.join(DEFAULT)} - {method} {sites}", DEFAULT, (method, sites)


def table(rows: Sequence[Row]) -> str:
    """A line a method and choice of sites, then the paired differences, as markdown."""
    facts = {k for m, s in _pairs(rows) for k in pooled(rows, m, s, "relearned")}
    lines = [
        "# Methods at the same forgetting", "",
        f"`python -m bench.methods`; {len(facts)} forgotten facts. Shares of the probability that the original",
        "gives, on sealed prompts, with 95% intervals over subjects; r: 0 is never taught, 1 the original. Runs (the",
        "recipe of runs), what is called whole, and `memit`, on sites of its own, are not weakened to the mark.",
        "",
        "| method | sites | reached | steps | strength | forgotten, left | same relation kept | same, answered "
        "| other relations kept | perplexity | back after relearning, r |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for method, sites in _pairs(rows):
        first = [r["settings"] for r in rows if _is(r, None, method, sites, "forget probability")]
        reached = [s for s in first if s["reached"]]
        told = [_told(pooled(rows, method, sites, m)) for m in ("forget probability", *KEPT)]
        steps, strength = (f"{np.median([s[k] for s in reached]):g}" if reached else "" for k in ("steps", "strength"))
        lines.append(
            f"| {method} | {sites} | {len(reached)} of {len(first)} | {steps} | {strength} | {' | '.join(told)} "
            f"| {_rise(rows, method, sites)} | {_told(pooled(rows, method, sites, 'relearned'), '.2f')} |"
        )
    lines += ["", "| paired over subjects | difference | 95% interval | subjects |", "|---|---|---|---|"]
    for r in paired(rows):
        lines.append(f"| {r['name']} | {r['value']:+.3f} | {r['low']:+.3f} to {r['high']:+.3f} | {r['n']} |")
    return "\n".join(lines) + "\n"


def figure(rows: Sequence[Row]) -> Figure:
    """Each measure with its interval, a line a method, a mark a choice of sites."""
    methods = _methods(rows)
    shown = [s for s in SITES if any(s == b for _, b in _pairs(rows))]
    out = Figure(figsize=(10, 1.5 + 0.62 * len(methods)), layout="constrained")
    for ax, (measure, title) in zip(out.subplots(1, len(TITLES), sharey=True), TITLES.items(), strict=True):
        for i, method in enumerate(methods):
            for j, sites in enumerate(shown):
                values = np.array(list(pooled(rows, method, sites, measure).values()))
                if not len(values):
                    continue
                color, marker = LOOKS[sites]
                y = i + 0.7 * ((j + 0.5) / len(shown) - 0.5)
                ax.plot(interval(values), [y, y], color=color, lw=2, alpha=0.6)
                ax.plot(values.mean(), y, marker, color=color, ms=6)
        ax.set(title=title, yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.5, -0.5))
        ax.set_title(title, fontsize=10)
        ax.axvline(float(measure in KEPT), color="#bbbbbb", lw=1, zorder=0)
        ax.hlines(np.arange(len(methods) - 1) + 0.5, *ax.get_xlim(), color="#eeeeee", lw=1, zorder=0)
        ax.margins(x=0.05)
        if measure != "relearned":
            ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
    for sites in shown:
        color, marker = LOOKS[sites]
        out.axes[0].plot([], [], marker, color=color, label=sites)
    out.legend(loc="outside lower center", ncols=len(shown), frameon=False)
    return out


def _told(values: dict[Any, float], form: str = ".0%") -> str:
    if not values:
        return ""
    some = np.array(list(values.values()))
    low, high = interval(some)
    return f"{some.mean():{form}} ({low:{form}} to {high:{form}})"


def _rise(rows: Sequence[Row], method: str, sites: str) -> str:
    """Median rise of the perplexity over cases and seeds."""
    some = [r for r in rows if _is(r, None, method, sites, "perplexity") and r["settings"]["reached"]]
    rises = [r["value"] / _of(rows, r["settings"]["case"], "original", "none", "perplexity")[0]["value"] for r in some]
    return f"{np.median(rises) - 1:+.1%}" if rises else ""


def _scale(rows: Sequence[Row], case: str, measure: str) -> tuple[float, float]:
    """What is 0 and what is 1."""
    one = _of(rows, case, "original", "none", measure)[0]["value"]
    if measure != "relearned":
        return 0.0, one
    return _of(rows, case, "original", "none", "relearned, twins")[0]["value"], one


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(method for method, _ in _pairs(rows)))


def _pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Methods in the order they were made, each with its sites."""
    there = [(r["settings"]["method"], r["settings"]["sites"]) for r in _cells(rows)]
    order = list(dict.fromkeys(m for m, _ in there if m != "original"))
    return [(m, s) for m in order for s in SITES if (m, s) in there]


def _cells(rows: Sequence[Row]) -> list[Row]:
    return [r for r in rows if "case" in r["settings"]]


def _of(rows: Sequence[Row], case: str, method: str, sites: str, name: str) -> list[Row]:
    return [r for r in rows if _is(r, case, method, sites, name)]


def _is(row: Row, case: str | None, method: str, sites: str, name: str) -> bool:
    s = row["settings"]
    return (row["name"], s.get("method"), s.get("sites")) == (name, method, sites) and case in (None, s["case"])
