"""Pictures of a localization with each site's name and scores under the pointer, as HTML without scripts or network."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from ..errors import UserError
from ..model import Part, Site
from .plot import LABEL, RANKS

if TYPE_CHECKING:
    from .localization import Localization

SHOWN = 1500
_CELL, _ROW, _LEFT, _TOP, _BOTTOM = 22, 14, 52, 34, 44
_SQUARE = 360


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
        fill = _colour(r.score / limit)
        return f'<rect x="{x}" y="{y}" width="{cell}" height="{_ROW}" fill="{fill}"><title>{_tip(r)}</title></rect>'

    cells = [draw(r) for r in rows.itertuples()]
    across = "rank within the layer" if part == "neuron" else part
    height = _TOP + _ROW * n_layers + _BOTTOM
    labels = [
        *(_text(_LEFT - 6, _TOP + _ROW * (n_layers - i) - 3, str(i), "end") for i in range(0, n_layers, 5)),
        *(_text(_LEFT + cell * (i + 0.5), height - 28, str(i), "middle") for i in range(0, width, max(1, width // 8))),
        _text(_LEFT, 14, f"{part}s: {LABEL}, red above zero, blue below", "start", bold=True),
        _text(_LEFT, height - 8, across, "start"),
        _text(12, _TOP + _ROW * n_layers / 2, "layer", "middle", turned=True),
    ]
    return _svg(max(440, _LEFT + cell * width + 20), height, [*cells, *labels])


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
        fill = _colour(r.score / top)
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="#555"><title>{_tip(r)}</title></circle>'

    lines = [
        _line(*at(-limit, 0), *at(limit, 0)), _line(*at(0, -limit), *at(0, limit)),
        _line(*at(-limit, -limit), *at(limit, limit), dash="4"),
    ]  # fmt: skip
    ticks = (-limit / 2, limit / 2)
    labels = [
        *(_text(at(t, 0)[0], _TOP + _SQUARE + 14, f"{t:.3f}", "middle") for t in ticks),
        *(_text(_LEFT - 6, at(0, t)[1] + 4, f"{t:.3f}", "end") for t in ticks),
        _text(_LEFT, 14, f"{part}s, shares of a fact's effect", "start", bold=True),
        _text(_LEFT + _SQUARE / 2, _TOP + _SQUARE + 30, "for facts to be kept", "middle"),
        _text(12, _TOP + _SQUARE / 2, "for facts to be forgotten", "middle", turned=True),
        _text(_LEFT, _TOP + _SQUARE + 46, f"{len(shown):,} of {len(rows):,} shown; dashed: no contrast", "start"),
    ]
    dots = [dot(r) for r in shown[::-1].itertuples()]
    return _svg(_LEFT + _SQUARE + 20, _TOP + _SQUARE + 56, [*lines, *dots, *labels])


def _of(found: Localization, part: Part) -> pd.DataFrame:
    if part not in found.parts:
        raise UserError(f"{part!r} was not scored here; scored are {', '.join(found.parts)}.")
    return found.frame[found.frame["part"] == part].rename(columns={"index": "unit"})


def _tip(r: Any) -> str:
    return escape(
        f"{Site(int(r.layer), r.part, int(r.unit))}\ncontrast {r.score:+.4f} ({r.low:+.4f} to {r.high:+.4f})\n"
        f"forget {r.forget:+.4f}, retain {r.retain:+.4f}\nchosen in {r.frequency:.0%} of resamples, q {r.q:.2f}"
    )


def _colour(share: float) -> str:
    return to_hex(colormaps["RdBu_r"](0.5 + 0.5 * float(np.clip(share, -1, 1))))


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False, turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.0f} {y:.0f})"' if turned else ""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{weight}{turn}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, *, dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#888"{dashes}/>'


def _svg(width: float, height: float, parts: Iterable[str]) -> str:
    style = "font:12px sans-serif;max-width:100%;height:auto;background:#fff"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
    return f'{head} style="{style}" role="img">\n' + "\n".join(parts) + "\n</svg>\n"
