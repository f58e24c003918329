"""Draw a localization as HTML, with each site's name and scores in a tooltip; no scripts, no network."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from ...model import Part
from . import svg
from .plot import FORGET, RANKS, RETAIN, SCORE, part_title

SCATTERED = 1500
_CELL, _ROW, _LEFT, _TOP, _BOTTOM = 22, 14, 52, 64, 44
_SQUARE = 360


def heatmap_html(rows: pd.DataFrame, part: Part, unit: str) -> str:
    """A part's layer-by-unit heatmap as an SVG fragment. For neurons, it shows each layer's best 40.

    A tooltip on each cell shows the site, its score with its interval, and both sides of the contrast. The browser
    draws the tooltips itself, so the fragment works in a notebook, in a report and offline. Cells have the site's
    opacity, and chosen ones a frame.

    Args:
        rows: the part's rows of a localization's frame, with the name of each `site`, its `opacity`, and whether it is
            `chosen`.
        unit: what the scores are measured in.
    """
    rows = rows.rename(columns={"index": "unit"})
    if part == "neuron":
        rows = rows.sort_values(["layer", "score"], ascending=[True, False])
    rank = rows.groupby("layer").cumcount()
    rows = rows.assign(column=rank)[rank < RANKS]
    n_layers, width = int(rows["layer"].max()) + 1, int(rows["column"].max()) + 1
    size = _CELL if width <= 16 else max(8, 640 // width)
    limit = float(rows["score"].abs().quantile(0.99)) or 1.0

    def cell(r: Any) -> str:
        x, y = _LEFT + size * r.column, _TOP + _ROW * (n_layers - 1 - r.layer)
        return svg.cell(x, y, size, _ROW, svg.colour(r.score / limit), _tip(r), opacity=r.opacity, framed=r.chosen)

    cells = [cell(r) for r in rows.itertuples()]
    axis = "rank within the layer" if part == "neuron" else part
    height = _TOP + _ROW * n_layers + _BOTTOM
    labels = [
        *(svg.text(_LEFT - 6, _TOP + _ROW * (n_layers - i) - 3, str(i), "end") for i in range(0, n_layers, 5)),
        *(
            svg.text(_LEFT + size * (i + 0.5), height - 28, str(i), "middle")
            for i in range(0, width, max(1, width // 8))
        ),
        svg.text(_LEFT, 14, part_title(part), bold=True),
        svg.scale(_LEFT, 26, limit, f"{SCORE}, {unit}"),
        svg.text(_LEFT, height - 8, f"{axis}; faint: the interval spans zero; framed: chosen", "start"),
        svg.text(12, _TOP + _ROW * n_layers / 2, "layer", "middle", angle=-90),
    ]
    return svg.svg(max(440, _LEFT + size * width + 20), height, [*cells, *labels])


def scatter_html(rows: pd.DataFrame, part: Part, unit: str) -> str:
    """Each site's effect on the facts to keep (across) and on the facts to forget (up), as an SVG fragment.

    The fragment shows the 1,500 sites farthest from the origin, and says how many there are in all.

    Args:
        rows: the part's rows of a localization's frame, with the name of each `site`.
        unit: what the scores are measured in.
    """
    rows = rows.rename(columns={"index": "unit"})
    farthest = np.argsort(-np.hypot(rows["forget"].to_numpy(), rows["retain"].to_numpy()), kind="stable")
    drawn = rows.iloc[farthest[:SCATTERED]]
    limit = float(drawn[["forget", "retain"]].abs().to_numpy().max()) * 1.05 or 1.0
    top = float(drawn["score"].abs().quantile(0.99)) or 1.0

    def at(retain: float, forget: float) -> tuple[float, float]:
        return _LEFT + _SQUARE * (retain / limit + 1) / 2, _TOP + _SQUARE * (1 - forget / limit) / 2

    def dot(r: Any) -> str:
        x, y = at(r.retain, r.forget)
        fill = svg.colour(r.score / top)
        tip = f"<title>{escape(_tip(r))}</title>"
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="#555">{tip}</circle>'

    lines = [
        svg.line(*at(-limit, 0), *at(limit, 0)), svg.line(*at(0, -limit), *at(0, limit)),
        svg.line(*at(-limit, -limit), *at(limit, limit), dash="4"),
    ]  # fmt: skip
    ticks = (-limit / 2, limit / 2)
    labels = [
        *(svg.text(at(t, 0)[0], _TOP + _SQUARE + 14, f"{t:.2g}", "middle") for t in ticks),
        *(svg.text(_LEFT - 6, at(0, t)[1] + 4, f"{t:.2g}", "end") for t in ticks),
        svg.text(_LEFT, 14, part_title(part), bold=True),
        svg.scale(_LEFT, 26, top, f"{SCORE}, {unit}"),
        svg.text(_LEFT + _SQUARE / 2, _TOP + _SQUARE + 30, f"{RETAIN}, {unit}", "middle"),
        svg.text(10, _TOP + _SQUARE / 2, f"{FORGET}, {unit}", "middle", angle=-90),
        svg.text(_LEFT, _TOP + _SQUARE + 46, f"{len(drawn):,} of {len(rows):,} sites; dashed: no contrast", "start"),
    ]
    dots = [dot(r) for r in drawn[::-1].itertuples()]
    return svg.svg(_LEFT + _SQUARE + 20, _TOP + _SQUARE + 56, [*lines, *dots, *labels])


def _tip(r: Any) -> str:
    return (
        f"{r.site}\ncontrast {r.score:+.4f} ({r.low:+.4f} to {r.high:+.4f})\n"
        f"forget {r.forget:+.4f}, retain {r.retain:+.4f}\namong the best in {r.frequency:.0%} of resamples, q {r.q:.2f}"
    )
