"""The tables of the line-up, in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .families import FAMILIES, SEEDS, Half
from .statistics import auroc, share_limits, upper_bound

Row = dict[str, Any]
OUTCOMES = ("removed", "suppressed", "intact", "inconclusive")
RIGHT = {"removed": 0.9, "intact": 1.0, "inconclusive": 1.0}


def report(rows: Sequence[Row]) -> str:
    """All tables of the finished halves. The sealed half is shown when all of its models are there."""
    parts = ["# The line-up\n"]
    for half in ("open", "sealed"):
        of_half = [r for r in rows if r["settings"]["half"] == half]
        done = len(of_half) == models(half)
        parts.append(f"## The {half} half\n\n{len(of_half)} of {models(half)} models are audited.\n")
        if of_half and (done or half == "open"):
            parts += [confusion(of_half), counts(of_half), areas(of_half), attacks(of_half), cost(of_half)]
    return "\n".join(parts)


def models(half: Half) -> int:
    """How many models a half has."""
    return len(SEEDS[half]) * sum(f.half == half for f in FAMILIES)


def confusion(rows: Sequence[Row]) -> str:
    """How often each family got each outcome. A family's models whose truth is unknown stand in a line of their own."""
    lines = []
    for name, truth in dict.fromkeys((r["name"], r["settings"]["truth"]) for r in rows):
        of = [r["settings"] for r in rows if (r["name"], r["settings"]["truth"]) == (name, truth)]
        found = Counter(s["outcome"] for s in of)
        shows = sum(s["shows"] for s in of) / len(of)
        back = [s["witnessed"] for s in of if s["witnessed"] is not None]
        told = f"{of[0]['witness']} {_span(back)}" if back else ""
        lines.append([name, truth, *(str(found[o] or "") for o in OUTCOMES), f"{shows:.2f}", told])
    return _table(["family", "truth", *OUTCOMES, "answers", "witness"], lines)


def counts(rows: Sequence[Row]) -> str:
    """The shares of right verdicts by truth with exact 95% intervals, and the bound on false claims of removal."""
    lines = []
    for truth in OUTCOMES:
        of = [r["settings"]["outcome"] for r in rows if r["settings"]["truth"] == truth]
        if of:
            k = of.count(truth)
            low, high = share_limits(k, len(of))
            lines.append([truth, f"{k} of {len(of)}", f"{k / len(of):.2f}", f"{low:.2f} to {high:.2f}"])
    there = [r["settings"]["outcome"] for r in rows if r["settings"]["truth"] in ("suppressed", "intact")]
    false = there.count("removed")
    bound = f"At most {upper_bound(false, len(there)):.1%} with 95% confidence." if there else ""
    return _table(["truth", "right", "share", "95% interval"], lines) + (
        f"\nOf {len(there)} models that hold the knowledge, {false} were called removed. {bound}\n"
    )


def score(row: Row) -> float:
    """The score of a verdict: the largest r of recall and of all attacks."""
    s = row["settings"]
    return max((s["r"][c] for c in ("recall", *s["attacks"]) if c in s["r"]), default=0.0)


def areas(rows: Sequence[Row]) -> str:
    """How well each check and each of the field's metrics tells what holds the knowledge from what does not.

    A check that gives no number finds nothing: it counts as r = 0.
    """
    gone = [r for r in rows if r["settings"]["truth"] == "removed"]
    left = [r for r in rows if r["settings"]["truth"] in ("suppressed", "intact")]
    checks = dict.fromkeys(c for r in rows for c in r["settings"]["r"])
    fields = dict.fromkeys(m for r in rows for m in r["settings"]["field"])
    scores: dict[str, Any] = {"**score of the verdict**": score}
    scores |= {c: lambda row, c=c: row["settings"]["r"].get(c, 0.0) for c in checks}
    scores |= {f"{m} (field)": lambda row, m=m: row["settings"]["field"].get(m) or 0.0 for m in fields}
    found = {name: auroc([of(r) for r in left], [of(r) for r in gone]) for name, of in scores.items()}
    hidden = [r for r in left if r["settings"]["truth"] == "suppressed"]
    alone = {name: auroc([of(r) for r in hidden], [of(r) for r in gone]) for name, of in scores.items()}
    lines = [[n, f"{a:.3f}", _number(alone[n])] for n, a in found.items() if a is not None]
    return f"{len(left)} models with the knowledge against {len(gone)} without.\n\n" + _table(
        ["score", "AUROC", "suppressed alone"], lines
    )


def attacks(rows: Sequence[Row]) -> str:
    """For each hidden family, the mean r of each attack; in bold where it is found in most of the models."""
    hidden = [r for r in rows if r["settings"]["truth"] == "suppressed"]
    names = list(dict.fromkeys(c for r in hidden for c in r["settings"]["attacks"]))
    lines = []
    for family in dict.fromkeys(r["name"] for r in hidden):
        of = [r["settings"] for r in hidden if r["name"] == family]
        lines.append([family, *(_found(of, c) for c in names)])
    alone = Counter(s["found by"][0] for r in hidden if len((s := r["settings"])["found by"]) == 1)
    told = ", ".join(f"{c} {n}" for c, n in alone.most_common()) or "none"
    return _table(["family", *names], lines) + f"\nModels that one attack alone finds: {told}.\n"


def cost(rows: Sequence[Row]) -> str:
    """The seconds of an audit."""
    seconds = sorted(r["value"] for r in rows)
    return (
        f"\nAn audit takes {seconds[len(seconds) // 2]:.0f} seconds of one core (median; at most {seconds[-1]:.0f}).\n"
    )


def _found(of: Sequence[Row], check: str) -> str:
    values = [s["r"][check] for s in of if check in s["r"]]
    if not values:
        return ""
    mean = f"{sum(values) / len(values):.2f}"
    return f"**{mean}**" if 2 * sum(check in s["found by"] for s in of) > len(of) else mean


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}" if min(values) < max(values) else f"{values[0]:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
