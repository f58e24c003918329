"""Pictures of a localization with each site's name and scores under the pointer, as HTML without scripts or network."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..._util.errors import UserError
from ...model import INDEXED, Part, Site
from . import svg
from .plot import FORGOTTEN, KEPT, LABEL, RANKS, names

if TYPE_CHECKING:
    from ..localization import Localization
    from ..tracing import Tracing

SHOWN = 1500
_CELL, _ROW, _LEFT, _TOP, _BOTTOM = 22, 14, 52, 64, 44
_SQUARE, _WIDE = 360, 46


def heatmap_html(found: Localization, part: Part) -> str:
    """The layer by unit heatmap of a part as an SVG fragment; of neurons, each layer's 40 best.

    Hovering over a cell shows the site, its score with its interval, and both sides of the contrast.
    The text is a tooltip of the browser itself, so that the fragment works in a notebook, in a report and offline.

    Raises:
        UserError: a part that was not scored.
    """
    rows = _of(found, part)
    if part == "neuron":
        rows = rows.sort_values(["layer", "score"], ascending=[True, False])
    rank = rows.groupby("layer").cumcount()
    rows = rows.assign(column=rank)[rank < RANKS]
    n_layers, width = int(rows["layer"].max()) + 1, int(rows["column"].max()) + 1
    cell = _CELL if width <= 16 else max(8, 640 // width)
    limit = float(rows["score"].abs().quantile(0.99)) or 1.0

    def draw(r: Any) -> str:
        x, y = _LEFT + cell * r.column, _TOP + _ROW * (n_layers - 1 - r.layer)
        return svg.cell(x, y, cell, _ROW, svg.colour(r.score / limit), _tip(r))

    cells = [draw(r) for r in rows.itertuples()]
    across = "rank within the layer" if part == "neuron" else part
    height = _TOP + _ROW * n_layers + _BOTTOM
    labels = [
        *(svg.text(_LEFT - 6, _TOP + _ROW * (n_layers - i) - 3, str(i), "end") for i in range(0, n_layers, 5)),
        *(
            svg.text(_LEFT + cell * (i + 0.5), height - 28, str(i), "middle")
            for i in range(0, width, max(1, width // 8))
        ),
        svg.text(_LEFT, 14, names(part), bold=True),
        svg.scale(_LEFT, 26, limit, LABEL),
        svg.text(_LEFT, height - 8, across, "start"),
        svg.text(12, _TOP + _ROW * n_layers / 2, "layer", "middle", angle=-90),
    ]
    return svg.svg(max(440, _LEFT + cell * width + 20), height, [*cells, *labels])


def scatter_html(found: Localization, part: Part) -> str:
    """What each site does for the facts to be kept (across) and for those to be forgotten (up), as an SVG fragment.

    The 1,500 sites that are furthest from the origin are shown; how many are left out is written below.

    Raises:
        UserError: a part that was not scored.
    """
    rows = _of(found, part)
    far = np.argsort(-np.hypot(rows["forget"].to_numpy(), rows["retain"].to_numpy()), kind="stable")
    shown = rows.iloc[far[:SHOWN]]
    limit = float(shown[["forget", "retain"]].abs().to_numpy().max()) * 1.05 or 1.0
    top = float(shown["score"].abs().quantile(0.99)) or 1.0

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
        svg.text(_LEFT, 14, names(part), bold=True),
        svg.scale(_LEFT, 26, top, LABEL),
        svg.text(_LEFT + _SQUARE / 2, _TOP + _SQUARE + 30, KEPT, "middle"),
        svg.text(10, _TOP + _SQUARE / 2, FORGOTTEN, "middle", angle=-90),
        svg.text(_LEFT, _TOP + _SQUARE + 46, f"{len(shown):,} of {len(rows):,} shown; dashed: no contrast", "start"),
    ]
    dots = [dot(r) for r in shown[::-1].itertuples()]
    return svg.svg(_LEFT + _SQUARE + 20, _TOP + _SQUARE + 56, [*lines, *dots, *labels])


def tracing_html(seen: Tracing) -> str:
    """The layer by token picture of causal tracing as an SVG fragment."""
    n_layers, width = seen.values.shape
    limit = max(1.0, float(np.abs(seen.values).max()))
    below = _TOP + _ROW * n_layers

    def draw(layer: int, token: int) -> str:
        value = seen.values[layer, token]
        tip = f"{Site(layer, seen.part)}, {seen.tokens[token]!r}\nrestores {value:+.1%} of the answer"
        at = _LEFT + _WIDE * token, _TOP + _ROW * (n_layers - 1 - layer)
        return svg.cell(*at, _WIDE, _ROW, svg.colour(value / limit), tip)

    cells = [draw(layer, token) for layer in range(n_layers) for token in range(width)]
    labels = [
        svg.text(_LEFT, 14, seen.title, bold=True),
        svg.scale(_LEFT, 26, limit, "share of the answer restored"),
        *(svg.text(_LEFT - 6, _TOP + _ROW * (n_layers - i) - 3, str(i), "end") for i in range(0, n_layers, 5)),
        *(
            svg.text(_LEFT + _WIDE * (i + 0.6), below + 14, token.strip() or repr(token), "end", angle=-40)
            for i, token in enumerate(seen.tokens)
        ),
        svg.text(14, _TOP + _ROW * n_layers / 2, "layer", "middle", angle=-90),
    ]
    long = max(len(t) for t in seen.tokens)
    return svg.svg(max(440, _LEFT + _WIDE * width + 20), below + 26 + 5 * long, [*cells, *labels])


def _of(found: Localization, part: Part) -> pd.DataFrame:
    if part not in found.parts:
        raise UserError(f"{part!r} was not scored here; scored are {', '.join(found.parts)}.")
    return found.frame[found.frame["part"] == part].rename(columns={"index": "unit"})


def _tip(r: Any) -> str:
    site = Site(int(r.layer), r.part, int(r.unit) if r.part in INDEXED else None)
    return (
        f"{site}\ncontrast {r.score:+.4f} ({r.low:+.4f} to {r.high:+.4f})\n"
        f"forget {r.forget:+.4f}, retain {r.retain:+.4f}\nchosen in {r.frequency:.0%} of resamples, q {r.q:.2f}"
    )
