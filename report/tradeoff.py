"""The collateral damage of an edit by its size and strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from ..locate.figures.plot import Picture

SHADES = ("#9ecae1", "#4292c6", "#2171b5", "#08306b")
MARKERS = "v^so"


def tradeoff(rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float]) -> Figure:
    """Forget prompts answered, retain prompts lost and rise in perplexity, by number of sites; one line per strength.

    Args:
        rows: with `sites, strength, forget, retain_drop, perplexity_rise`.
        limits: the largest allowed values of the last three, by name; drawn as dashed lines.
    """
    figure = Picture(figsize=(9.6, 3.6), layout="constrained")
    titles = {
        "forget": "forget prompts answered", "retain_drop": "held-out retain prompts lost",
        "perplexity_rise": "rise in perplexity",
    }  # fmt: skip
    strengths = sorted({row["strength"] for row in rows})
    sizes = sorted({row["sites"] for row in rows})
    for ax, (key, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        for i, strength in enumerate(strengths):
            points = sorted((row["sites"], row[key]) for row in rows if row["strength"] == strength)
            ax.plot(
                *zip(*points, strict=True), marker=MARKERS[i % len(MARKERS)], color=SHADES[i % len(SHADES)],
                label=f"strength {strength:g}" if key == "forget" else None,
            )  # fmt: skip
        ax.axhline(limits[key], ls="--", lw=1, color="#b2182b")
        ax.set(title=title, xlabel="sites", xscale="log")
        ax.set_xticks(sizes, minor=False)
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.minorticks_off()
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(strengths), frameon=False)
    return figure
