"""SVG elements. They work in a notebook, in a report and offline, without scripts."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex


def colour(share: float) -> str:
    """A colour for a number from -1 (blue) through 0 (white) to 1 (red)."""
    return to_hex(colormaps["RdBu_r"](0.5 + 0.5 * float(np.clip(share, -1, 1))))


def text(
    x: float, y: float, content: str, anchor: str = "start", *, bold: bool = False, angle: int = 0, fill: str = "#000"
) -> str:
    """A line of text. `anchor` is `start`, `middle` or `end`."""
    turn = f' transform="rotate({angle} {x:.0f} {y:.0f})"' if angle else ""
    weight = ' font-weight="bold"' if bold else ""
    tint = f' fill="{fill}"' if fill != "#000" else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{weight}{tint}{turn}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, *, dash: str = "", stroke: str = "#888") -> str:
    """A straight line."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{dashes}/>'


def cell(
    x: float, y: float, width: float, height: float, fill: str, tip: str, *, opacity: float = 1.0, framed: bool = False
) -> str:
    """A rectangle with a tooltip."""
    faint = f' fill-opacity="{opacity:g}"' if opacity < 1 else ""
    frame = ' stroke="#000"' if framed else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"{faint}{frame}>'
        f"<title>{escape(tip)}</title></rect>"
    )


def scale(x: float, y: float, limit: float, label: str, *, width: float = 120) -> str:
    """A colour bar from `-limit` to `limit`, with its numbers below."""
    steps = 24
    cells = [
        f'<path d="M{x + width * i / steps:.1f} {y:.0f}h{width / steps + 0.5:.1f}v8h-{width / steps + 0.5:.1f}z" '
        f'fill="{colour(2 * (i + 0.5) / steps - 1)}"/>'
        for i in range(steps)
    ]
    ticks = [text(x + width * (v + 1) / 2, y + 20, f"{v * limit:.2g}", "middle") for v in (-1, 0, 1)]
    return "".join([*cells, *ticks, text(x + width + 16, y + 9, label)])


def svg(width: float, height: float, parts: Iterable[str]) -> str:
    """An SVG fragment of its natural width, or narrower where the page is."""
    style = "font:12px sans-serif;max-width:100%;height:auto;background:#fff"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
    return f'{head} style="{style}" role="img">\n' + "\n".join(parts) + "\n</svg>\n"
