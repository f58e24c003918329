"""Figures of a whole run: what changed, what relearning brought back, and how certain that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..audit.controls import CONTROLS, Control
from ..audit.summary import Column
from ..locate.figures.plot import Picture
from ..verify import Reading
from ..verify.judge.statistics import Recovery
from ..verify.judge.thresholds import DELTA, EXPOSED
from .words import FACTS, Words

Readings = Mapping[str, Mapping[str, Reading]]


class Look(NamedTuple):
    """How every figure draws a model; hues and markers are distinct even without colour vision."""

    label: str
    color: str
    marker: str


PALETTE = (("#d98200", "^"), ("#b8568f", "D"), ("#56b4e9", "P"), ("#7a5195", "X"), ("#8c6d31", "*"))


def looks(controls: Sequence[Control] = CONTROLS) -> dict[str, Look]:
    """How to draw the original, the edited model, each control in the order of its table, and the twins."""
    drawn = (PALETTE[i % len(PALETTE)] for i in range(len(controls)))
    return {
        "before": Look("original", "#4d4d4d", "s"),
        "after": Look("located edit", "#0072b2", "o"),
        **{control.name: Look(control.label, *style) for control, style in zip(controls, drawn, strict=True)},
        "twins": Look("never taught (twins)", "#009e73", "v"),
    }


LOOKS = looks()


def before_after(columns: Mapping[str, Column], looks: Mapping[str, Look] = LOOKS, words: Words = FACTS) -> Figure:
    """The share of sealed prompts that each model answers, by group of items; a missing number has no bar.

    Args:
        columns: the numbers of each model, from `loka.audit.summary.columns`.
        looks: how to draw each model.
        words: how to speak of the items.
    """
    figure, ax = _axes(8.6, 3.9)
    drawn: set[str] = set()
    for x, group in enumerate(words.groups):
        values = [(m, v) for m, c in columns.items() if (v := getattr(c, group)) is not None]
        drawn |= {m for m, _ in values}
        for i, (model, value) in enumerate(values):
            at = x + 0.21 * (i - (len(values) - 1) / 2)
            ax.bar(at, value, 0.19, color=looks[model].color)
            ax.annotate(f"{100 * value:.0f}%", (at, value), (0, 3), textcoords="offset points", ha="center")
    for model in (m for m in columns if m in drawn):
        ax.bar(0, 0, color=looks[model].color, label=looks[model].label)
    ax.set(ylim=(0, 1.0), xlim=(-0.6, len(words.groups) - 0.4), ylabel=f"sealed prompts {words.shown}")
    ax.set_xticks(range(len(words.groups)), list(words.groups.values()))
    ax.tick_params(axis="x", length=0)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    return _keyed(figure, ax)


def relearning(readings: Readings, looks: Mapping[str, Look] = LOOKS) -> Figure:
    """The probability of held-out answers while the other facts are taught again, with the frozen budget.

    The scale on the right is r within the budget: 0 where the twins are at their strongest step, 1 where the original
    is. Step 0 is before relearning.

    Args:
        readings: by model and check, as `readings.json` has them.
        looks: how to draw each model.
    """
    figure, ax = _axes(8.6, 4.4)
    curves = _curves(readings, list(looks))
    for name, curve in curves.items():
        label, color, marker = looks[name]
        ax.plot(
            list(curve), list(curve.values()), color=color, marker=marker, label=label, lw=2,
            ms=7 if len(curve) > 1 else 11, zorder=3 if name == "after" else 2,
        )  # fmt: skip
    ax.set(xlabel="steps of relearning on the other facts", ylabel="probability of held-out answers")
    ax.set_ylim(0, 1.02)
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    details: Any = readings["after"]["relearn"].details
    budget = int(details["steps"])
    ax.axvline(budget, color="#888888", ls="--", lw=1)
    ax.annotate(
        "frozen budget", (budget, 1), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points",
        ha="center", va="bottom", size="small", color="#555555",
    )  # fmt: skip
    _r_axis(ax, curves, budget)
    return _keyed(figure, ax)


def recovery(found: Mapping[str, Mapping[str, Recovery]], looks: Mapping[str, Look] = LOOKS) -> Figure:
    """r of each check and model with its 95% interval; a bar marks the one-sided 95% upper bound.

    Args:
        found: by check, then by model (`after` and the controls).
        looks: how to draw each model.
    """
    figure, ax = _axes(8.6, 1.5 + 0.8 * len(found))
    for y, of_model in enumerate(found.values()):
        for i, (model, r) in enumerate(of_model.items()):
            _, color, marker = looks[model]
            at = y + 0.24 * (i - (len(of_model) - 1) / 2)
            ax.plot([r.low, r.high], [at, at], color=color, lw=2)
            ax.plot(r.r, at, color=color, marker=marker, ms=8)
            ax.plot(r.upper, at, color=color, marker="|", ms=11, mew=2)
    for model in dict.fromkeys(m for of_model in found.values() for m in of_model):
        ax.plot([], [], color=looks[model].color, marker=looks[model].marker, lw=2, label=looks[model].label)
    _thresholds(ax)
    every = [v for of_model in found.values() for r in of_model.values() for v in (r.low, r.high, r.upper)]
    ax.set_xlim(max(-2.0, min([-0.1, *every]) - 0.05), min(3.0, max([1.1, *every]) + 0.05))
    ax.set_yticks(range(len(found)), list(found), parse_math=False)
    ax.set(ylim=(len(found) - 0.5, -0.5), xlabel="r   (0 = as if never taught, 1 = intact)")
    return _keyed(figure, ax)


def probe(reading: Reading) -> Figure:
    """How well a linear probe ranks the right answer at each layer; its controls are dashed lines.

    Args:
        reading: a reading of the check `probe`.
    """
    figure, ax = _axes(8.6, 4.2)
    positions = {"subject": ("#56b4e9", "s"), "last": ("#0072b2", "o")}
    details: Any = reading.details
    for position, values in details["by_layer"].items():
        color, marker = positions.get(position, ("#333333", "x"))
        name = f"facts to forget, {position} token"
        ax.plot(range(len(values)), values, color=color, marker=marker, ms=4, label=name)
    controls = {"retain": ("facts to keep", "#4d4d4d", "-."), "twins": ("twins", "#009e73", "--"),
                "shuffled": ("shuffled answers", "#d98200", ":"),
                "random_weights": ("untrained model", "#b8568f", (0, (1, 3)))}  # fmt: skip
    for name, (label, color, style) in controls.items():
        if name in reading.controls:
            ax.axhline(reading.controls[name], color=color, ls=style, lw=1.8, label=label)
    ax.axhline(0.5, color="#bbbbbb", lw=1, zorder=0)
    if (layer := details.get("layer")) is not None:
        ax.axvline(layer, color="#bbbbbb", lw=6, alpha=0.5, zorder=0, label="layer of the probe")
    ax.set(xlabel="layer (0 is the embedding)", ylabel="answers ranked below the right one")
    ax.set_ylim(min(0.4, ax.get_ylim()[0]), 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    return _keyed(figure, ax)


def agreement(points: Sequence[Sequence[float]], rank_correlation: float | None = None) -> Figure:
    """Attributed effects against exact effects of the same sites, with the line where both are equal.

    Args:
        points: `[site, 2]`, attributed and exact, in log-odds.
    """
    figure, ax = _axes(5.0, 4.2)
    values = np.asarray(points, float).reshape(-1, 2)
    ends = (float(values.min(initial=0.0)), float(values.max(initial=0.0)))
    ax.plot(ends, ends, color="#888888", ls="--", lw=1, label="equal")
    ax.scatter(values[:, 0], values[:, 1], color="#0072b2", alpha=0.75, edgecolor="white", label="a site")
    ax.set(xlabel="attributed effect (log-odds)", ylabel="exact effect (log-odds)")
    if rank_correlation is not None:
        ax.set_title(f"rank correlation {rank_correlation:.2f}", size="medium", loc="left")
    ax.legend(frameon=False)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Picture(figsize=(width, height), layout="constrained")
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def _keyed(figure: Figure, ax: Axes) -> Figure:
    """Put the legend above the axes, where it hides no data."""
    handles, _ = ax.get_legend_handles_labels()
    columns = len(handles) if len(handles) < 6 else 4
    if handles:
        figure.legend(loc="outside upper left", ncols=columns, frameon=False, columnspacing=1.3, handlelength=1.7)
    return figure


def _curves(readings: Readings, names: Sequence[str]) -> dict[str, dict[int, float]]:
    """The mean by step of each model that was attacked, and of the twins on the edited model."""
    out: dict[str, dict[int, float]] = {}
    for name in names:
        model, group = ("after", "twins") if name == "twins" else (name, "forget")
        reading = readings.get(model, {}).get("relearn")
        curves: Any = reading.details.get("curve", {}) if reading else {}
        if curve := curves.get(group):
            out[name] = {int(step): float(curve[step]) for step in sorted(curve, key=int) if curve[step] is not None}
    return out


def _r_axis(ax: Axes, curves: Mapping[str, Mapping[int, float]], budget: int) -> None:
    """The r scale on the right, with a dotted line at delta and at one half."""
    top, low = (
        max((mean for step, mean in curves.get(name, {}).items() if step <= budget), default=None)
        for name in ("before", "twins")
    )
    if top is None or low is None or top <= low:
        return
    span = top - low
    right = ax.secondary_yaxis(
        "right", functions=(lambda y: (np.asarray(y) - low) / span, lambda r: low + np.asarray(r) * span)
    )
    right.set_ylabel("r within the budget (0 = twins, 1 = original)")
    right.set_yticks([0, DELTA, EXPOSED, 1], ["0", f"{DELTA:.2f}", f"{EXPOSED:.2f}", "1"])
    for r in (0, DELTA, EXPOSED, 1):
        ax.axhline(low + r * span, color="#cccccc", ls=":", lw=1, zorder=0)


def _thresholds(ax: Axes) -> None:
    lines = {0.0: "never\ntaught", DELTA: f"δ = {DELTA:.2f}", EXPOSED: f"{EXPOSED:.2f}", 1.0: "intact"}
    for r, label in lines.items():
        ax.axvline(r, color="#aa3333" if r == DELTA else "#aaaaaa", ls="-" if r == 0 else "--", lw=1, zorder=0)
        ax.annotate(
            label, (r, 1), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="right" if r == 0 else "left" if r == DELTA else "center", size="small", color="#555555",
        )  # fmt: skip
