"""Paired differences, a table and a figure from the rows of `bench.methods`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from loka.verify.judge.statistics import interval

Row = dict[str, Any]
Arm = tuple[str, str]  # a method and its choice of sites
OURS = ("located", "frequent", "selective", "specific")
SITES = (*OURS, "random", "layers", "all", "shallow", "own")
PAIRS = [(ours, s) for ours in OURS for s in ("random", "layers", "all", "located") if s != ours]
DEFAULT: Arm = ("runs", "located")
BASELINES = ("random", "all", "own")
PLAIN: Arm = ("runs, plain", "located")
RETAIN = {
    "same probability": "same relation kept", "same answered": "same relation answered",
    "other probability": "other relations kept",
}  # fmt: skip
MEASURES = {"forget probability": "forget answers left", **RETAIN, "relearned": "back after relearning"}
TITLES = {
    "forget probability": "forget answers\nleft, sealed prompts", "same probability": "same relation\nkept",
    "other probability": "other relations\nkept", "relearned": "back after\nrelearning (r)",
}  # fmt: skip
STYLES = {
    "located": ("#0072b2", "o"), "frequent": ("#009e73", "s"), "random": ("#d98200", "^"), "layers": ("#cc79a7", "v"),
    "selective": ("#f0e442", "*"),
    "specific": ("#7f3c8d", "P"), "all": ("#555555", "D"), "shallow": ("#b2182b", "x"), "own": ("#56b4e9", "h"),
}  # fmt: skip


def by_subject(rows: Sequence[Row], method: str, sites: str, measure: str) -> dict[tuple[str, str], float]:
    """The median over the seeds that reached the mark, by case and subject, on a scale where the original is 1.

    On `relearned`, the scale is r: 0 is the twins' value. On what must be retained, the value is 1 plus the change from
    the subject's own start, so its interval is that of the change. On `forget probability`, 0 is a probability of 0.
    """
    out = {}
    for case in dict.fromkeys(r["settings"]["case"] for r in _measurements(rows)):
        cells = [r for r in _select(rows, case, method, sites, measure) if r["settings"].get("reached", True)]
        start = _select(rows, case, "original", "none", measure)[0]["samples"]
        zero, one = _scale(rows, case, measure)
        for subject in cells[0]["samples"] if cells else ():
            value = np.median([r["samples"][subject] for r in cells])
            out[case, subject] = (
                1 + (value - start[subject]) / one if measure in RETAIN else (value - zero) / (one - zero)
            )
    return out


def paired_differences(rows: Sequence[Row]) -> list[Row]:
    """Differences between two arms, over the subjects of the cases where both reached the mark.

    Within a method: sites located either way minus other sites. Across methods: the recipe of runs minus the methods
    that locate nothing.
    """
    out = []
    for name, ours, theirs in _comparisons(rows):
        for measure, title in MEASURES.items():
            mine, others = (by_subject(rows, *cell, measure) for cell in (ours, theirs))
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


def _comparisons(rows: Sequence[Row]) -> Iterator[tuple[str, Arm, Arm]]:
    for method in _methods(rows):
        for located, control in PAIRS:
            yield f"{method}: {located} - {control}", (method, located), (method, control)
    for method, sites in _pairs(rows):
        if (method != DEFAULT[0] and sites in BASELINES) or (method, sites) == PLAIN:
            yield f"{' '.join(DEFAULT)} - {method} {sites}", DEFAULT, (method, sites)


def table(rows: Sequence[Row]) -> str:
    """Markdown: one line per method and choice of sites, then the paired differences."""
    facts = {k for m, s in _pairs(rows) for k in by_subject(rows, m, s, "relearned")}
    lines = [
        "# Methods at the same forgetting", "",
        f"`python -m bench.methods`; {len(facts)} forget facts. Shares of the original's value on sealed prompts, with",
        "95% intervals over subjects. r is 0 for facts that were never taught and 1 for the original. `runs` is the",
        "recipe of runs. Not weakened to the mark: `runs`, the methods called `whole`, and `memit` on its own sites.",
        "",
        "| method | sites | reached | steps | strength | forget answers left | same relation kept "
        "| same relation answered | other relations kept | perplexity | back after relearning, r |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for method, sites in _pairs(rows):
        back = _with_interval(by_subject(rows, method, sites, "relearned"), ".2f")
        first = [r["settings"] for r in rows if _matches(r, None, method, sites, "forget probability")]
        reached = [s for s in first if s["reached"]]
        shares = [_with_interval(by_subject(rows, method, sites, m)) for m in ("forget probability", *RETAIN)]
        steps, strength = (f"{np.median([s[k] for s in reached]):g}" if reached else "" for k in ("steps", "strength"))
        lines.append(
            f"| {method} | {sites} | {len(reached)} of {len(first)} | {steps} | {strength} | {' | '.join(shares)} "
            f"| {_perplexity_rise(rows, method, sites)} | {back} |"
        )
    lines += ["", "| paired over subjects | difference | 95% interval | subjects |", "|---|---|---|---|"]
    for r in paired_differences(rows):
        lines.append(f"| {r['name']} | {r['value']:+.3f} | {r['low']:+.3f} to {r['high']:+.3f} | {r['n']} |")
    return "\n".join(lines) + "\n"


def figure(rows: Sequence[Row]) -> Figure:
    """Each measure with its interval. A line is a method, a marker a choice of sites."""
    methods = _methods(rows)
    present = [s for s in SITES if any(s == b for _, b in _pairs(rows))]
    out = Figure(figsize=(10, 1.5 + 0.62 * len(methods)), layout="constrained")
    for ax, (measure, title) in zip(out.subplots(1, len(TITLES), sharey=True), TITLES.items(), strict=True):
        for i, method in enumerate(methods):
            for j, sites in enumerate(present):
                values = np.array(list(by_subject(rows, method, sites, measure).values()))
                if not len(values):
                    continue
                color, marker = STYLES[sites]
                y = i + 0.7 * ((j + 0.5) / len(present) - 0.5)
                ax.plot(interval(values), [y, y], color=color, lw=2, alpha=0.6)
                ax.plot(values.mean(), y, marker, color=color, ms=6)
        ax.set(title=title, yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.5, -0.5))
        ax.set_title(title, fontsize=10)
        ax.axvline(float(measure in RETAIN), color="#bbbbbb", lw=1, zorder=0)
        ax.hlines(np.arange(len(methods) - 1) + 0.5, *ax.get_xlim(), color="#eeeeee", lw=1, zorder=0)
        ax.margins(x=0.05)
        if measure != "relearned":
            ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
    for sites in present:
        color, marker = STYLES[sites]
        out.axes[0].plot([], [], marker, color=color, label=sites)
    out.legend(loc="outside lower center", ncols=len(present), frameon=False)
    return out


def _with_interval(values: dict[Any, float], form: str = ".0%") -> str:
    if not values:
        return ""
    numbers = np.array(list(values.values()))
    low, high = interval(numbers)
    return f"{numbers.mean():{form}} ({low:{form}} to {high:{form}})"


def _perplexity_rise(rows: Sequence[Row], method: str, sites: str) -> str:
    """The median rise of the perplexity over cases and seeds."""
    cells = [r for r in rows if _matches(r, None, method, sites, "perplexity") and r["settings"]["reached"]]
    before = [_select(rows, r["settings"]["case"], "original", "none", "perplexity")[0]["value"] for r in cells]
    rises = [r["value"] / b for r, b in zip(cells, before, strict=True)]
    return f"{np.median(rises) - 1:+.1%}" if rises else ""


def _scale(rows: Sequence[Row], case: str, measure: str) -> tuple[float, float]:
    """The values that become 0 and 1."""
    one = _select(rows, case, "original", "none", measure)[0]["value"]
    if measure != "relearned":
        return 0.0, one
    return _select(rows, case, "original", "none", "relearned, twins")[0]["value"], one


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(method for method, _ in _pairs(rows)))


def _pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Methods in the order of the rows, each with its sites."""
    there = [(r["settings"]["method"], r["settings"]["sites"]) for r in _measurements(rows)]
    order = list(dict.fromkeys(m for m, _ in there if m != "original"))
    return [(m, s) for m in order for s in SITES if (m, s) in there]


def _measurements(rows: Sequence[Row]) -> list[Row]:
    return [r for r in rows if "case" in r["settings"]]


def _select(rows: Sequence[Row], case: str, method: str, sites: str, name: str) -> list[Row]:
    return [r for r in rows if _matches(r, case, method, sites, name)]


def _matches(row: Row, case: str | None, method: str, sites: str, name: str) -> bool:
    s = row["settings"]
    return (row["name"], s.get("method"), s.get("sites")) == (name, method, sites) and case in (None, s["case"])
