"""Tables of what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..audit.controls import CONTROLS, with_column
from ..audit.cost import Estimate
from ..audit.harness import Scores, TaskComparison
from ..audit.summary import columns
from ..locate import Localization
from ..model import Part
from ..verify import Reading, Verdict
from ..verify.checks import CHECKS
from .bars import Bars as Bars


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _number(value: float) -> str:
    return f"{value:.2f}"


ROWS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("to forget, sealed prompts", "forget", _percent),
    ("to keep, nearest", "retain_same", _percent),
    ("to keep, others", "retain_other", _percent),
    ("perplexity of neutral text", "perplexity", _number),
    ("relearned: probability", "relearn", _number),
    ("relearned: r (1 = intact)", "r", _number),
)


def table(verdict: Verdict) -> Table:
    """Before and after, side by side with the controls."""
    made = with_column(CONTROLS, verdict.readings)
    found = columns(verdict.summary, verdict.readings, tuple(c.name for c in made))
    out = Table(title="before and after")
    for label in ("", "before", "after", *(c.label for c in made)):
        out.add_column(label, justify="left" if not label else "right")
    for label, field, form in ROWS:
        values = [getattr(one, field) for one in found.values()]
        out.add_row(label, *("-" if v is None else form(v) for v in values))
    return out


def lm_eval_table(found: Mapping[str, TaskComparison]) -> Table:
    """Each metric of each task of lm-evaluation-harness on both models, with standard errors."""
    out = Table(title="lm-evaluation-harness")
    for label in ("task", "metric", "samples", "before", "after"):
        out.add_column(label, justify="left" if label in ("task", "metric") else "right")
    for name, task in found.items():
        for metric in task.before.metrics:
            values = (_with_error(side.metrics, side.stderr, metric) for side in (task.before, task.after))
            out.add_row(name, metric, f"{task.before.n:,}", *values)
    return out


def _with_error(metrics: Scores, errors: Scores, metric: str) -> str:
    value, error = metrics.get(metric), errors.get(metric)
    if value is None:
        return "-"
    return f"{value:,.3f}" if error is None else f"{value:,.3f} ± {error:,.3f}"


def best_sites(found: Localization, part: Part, k: int) -> Table:
    """The best sites of a part with their intervals, and how many sites stand out beyond chance."""
    rows = found.to_frame().query("part == @part").set_index(["layer", "index"])
    best, stand = found.top(min(k, len(rows)), part=part), len(found.significant_sites(part))
    note = f"{stand:,} of {len(rows):,} stand out (q ≤ 0.05)" if stand else "none stands out: not localizable"
    # Without lines and padding, all columns fit into 80 characters. In fewer, numbers fold and names stay whole.
    out = Table(title=f"best {part} sites; {note}", title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    for column in ("site", "contrast", "95% interval", "forget", "retain", "frequency", "q"):
        name = column == "site"
        out.add_column(column, justify="left" if name else "right", no_wrap=name, overflow="fold")
    for site in best:
        row: Any = rows.loc[(site.layer, found.unit(site))]
        bounds = f"{row['low']:+.4f} to {row['high']:+.4f}"
        sides = (f"{row[side]:+.4f}" for side in ("forget", "retain"))
        out.add_row(str(site), f"{row['score']:+.4f}", bounds, *sides, f"{row['frequency']:.0%}", f"{row['q']:.3f}")
    return out


def what_is_left(silent: pd.DataFrame) -> Table:
    """The share of items that the model still knows when sites are zeroed: located sites and their controls."""
    out = Table(title="still known with these sites zeroed", title_justify="left")
    for column in ("zeroed", "sites", "to forget", "to keep, nearest", "to keep, others"):
        out.add_column(column, justify="left" if column == "zeroed" else "right")
    for name, row in silent.iterrows():
        shares = ("-" if pd.isna(row[c]) else f"{row[c]:.0%}" for c in ("forget", "same", "other"))
        out.add_row(str(name).replace("_", " "), str(int(row["sites"])), *shares)
    return out


def costs(steps: Sequence[Estimate], seconds: float, stored: Mapping[str, Mapping[str, Reading]]) -> Table:
    """Every step of an audit, its cost and its estimated time; a step that the folder already has costs nothing."""
    roles = {check.name: check.role for check in CHECKS}
    out = Table(title="checks")
    for label in ("model", "check", "role", "forward passes", "about"):
        number = label in ("forward passes", "about")
        out.add_column(label, justify="right" if number else "left", no_wrap=label in ("model", "check"))
    total = 0.0
    for step in steps:
        done = step.check in stored.get(step.model, {})
        total += 0 if done else step.cost
        time = "done" if done else f"{step.cost * seconds:,.1f} s"
        out.add_row(step.model, step.check, roles.get(step.check, ""), f"{step.cost:,.0f}", time)
    out.add_section()
    out.add_row("total left to run", "", "", f"{total:,.0f}", f"{total * seconds:,.1f} s")
    return out
