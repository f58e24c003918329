"""Progress bars and the table at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ..audit.cost import Estimate
from ..locate import Localization
from ..model import Part
from ..verify import Verdict

ROWS = (
    ("forgotten facts, sealed prompts", "forget_before", "forget_after", "random_forget_after", "shallow_forget_after"),
    ("kept facts, same relation", "retain_same_before", "retain_same_after", "random_retain_same_after", None),
    ("kept facts, other relations", "retain_other_before", "retain_other_after", "random_retain_other_after", None),
    ("perplexity of neutral text", "perplexity_before", "perplexity_after", "random_perplexity_after", None),
    (
        "relearned: probability of held-out answers",
        "relearn_original", "relearn_target", "relearn_random", "relearn_shallow",
    ),
    ("relearned, r (0 never taught, 1 intact)", None, "relearn_r", "random_relearn_r", "shallow_r"),
)  # fmt: skip


class Bars:
    """Progress with the time left, one bar for each thing under way; call it as `bars(what, done, total)`."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self.tasks:
            self._end_others()
            self.tasks[what] = self.progress.add_task(what, total=total)
        self.progress.update(self.tasks[what], completed=done, total=total)

    def say(self, text: str) -> None:
        """A line above the bars."""
        self.console.print(text, highlight=False)

    def _end_others(self) -> None:
        for task in self.progress.tasks:
            if not task.finished:
                self.progress.update(task.id, completed=task.total)


def table(verdict: Verdict) -> Table:
    """Before and after, side by side with the controls."""
    shown = Table(title="before and after")
    for column in ("", "before", "after", "random sites", "shallow sibling"):
        shown.add_column(column, justify="left" if not column else "right")
    for label, *keys in ROWS:
        shown.add_row(label, *(_cell(key, verdict.summary) for key in keys))
    return shown


def best_sites(found: Localization, part: Part, k: int) -> Table:
    """The best sites of a part with their intervals, and how many stand out beyond chance."""
    rows = found.to_frame().query("part == @part").set_index(["layer", "index"])
    best, stand = found.top(min(k, len(rows)), part=part), len(found.significant_sites(part))
    told = f"{stand:,} of {len(rows):,} stand out (q ≤ 0.05)" if stand else "none stands out: not localizable"
    shown = Table(title=f"best {part} sites; {told}", title_justify="left")
    for column in ("site", "contrast", "95% interval", "forget", "retain", "frequency", "q"):
        shown.add_column(column, justify="left" if column == "site" else "right")
    for site in best:
        row: Any = rows.loc[(site.layer, site.index or 0)]
        bounds = f"{row['low']:+.4f} to {row['high']:+.4f}"
        sides = (f"{row[side]:+.4f}" for side in ("forget", "retain"))
        shown.add_row(str(site), f"{row['score']:+.4f}", bounds, *sides, f"{row['frequency']:.0%}", f"{row['q']:.3f}")
    return shown


def what_is_left(silent: pd.DataFrame) -> Table:
    """Facts that are still answered with sites zeroed, located ones and their controls."""
    shown = Table(title="facts still answered with these sites zeroed", title_justify="left")
    for column in ("zeroed", "sites", "to forget", "to keep, same relation", "to keep, other relations"):
        shown.add_column(column, justify="left" if column == "zeroed" else "right")
    for name, row in silent.iterrows():
        shares = ("-" if pd.isna(row[c]) else f"{row[c]:.0%}" for c in ("forget", "same", "other"))
        shown.add_row(str(name).replace("_", " "), str(int(row["sites"])), *shares)
    return shown


def costs(steps: Sequence[Estimate], seconds: float, held: Mapping[str, Mapping[str, Any]]) -> Table:
    """Every step of an audit, what it costs and about how long it takes; what the folder holds is free."""
    shown = Table(title="checks")
    for column in ("model", "check", "forward passes", "about"):
        shown.add_column(column, justify="right" if column in ("forward passes", "about") else "left")
    total = 0.0
    for step in steps:
        done = step.check in held.get(step.model, {})
        total += 0 if done else step.cost
        time = "done" if done else f"{step.cost * seconds:,.1f} s"
        shown.add_row(step.model, step.check, f"{step.cost:,.0f}", time)
    shown.add_section()
    shown.add_row("all that is left", "", f"{total:,.0f}", f"{total * seconds:,.1f} s")
    return shown


def _cell(key: str | None, summary: dict[str, Any]) -> str:
    value = summary.get(key) if key else None
    if value is None:
        return "-"
    plain = key is not None and ("relearn" in key or "perplexity" in key or key == "shallow_r")
    return f"{value:.2f}" if plain else f"{value:.0%}"
