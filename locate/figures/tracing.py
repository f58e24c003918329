"""Draw causal tracing: layer by token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ...model import Part, Site
from . import svg
from .plot import Picture, heat

LABEL = "share of the answer restored"
_ROW, _COLUMN, _LEFT, _TOP = 14, 46, 52, 64


def plot_tracing(values: np.ndarray, tokens: Sequence[str], title: str) -> Figure:
    """Draw restored shares `[layer, token]` as a heatmap, with the tokens below and white at zero."""
    width = float(np.clip(0.55 * len(tokens) + 2.2, 4, 12))
    figure = Picture(figsize=(width, float(np.clip(0.17 * len(values) + 2, 3.4, 8))), layout="constrained")
    ax = figure.subplots()
    heat(ax, values, max(1.0, float(np.abs(values).max())), LABEL)
    ax.set_xticks(range(len(tokens)), [t.strip() or repr(t) for t in tokens], rotation=60, ha="right")
    ax.set(ylabel="layer (0 is next to the input)")
    ax.set_title(title, loc="left", size="small")
    return figure


def tracing_html(values: np.ndarray, tokens: Sequence[str], title: str, part: Part) -> str:
    """The same heatmap as an SVG fragment. A tooltip on each cell gives its site, token and share."""
    n_layers, width = values.shape
    limit = max(1.0, float(np.abs(values).max()))
    bottom = _TOP + _ROW * n_layers

    def cell(layer: int, token: int) -> str:
        value = values[layer, token]
        tip = f"{Site(layer, part)}, {tokens[token]!r}\nrestores {value:+.1%} of the answer"
        corner = _LEFT + _COLUMN * token, _TOP + _ROW * (n_layers - 1 - layer)
        return svg.cell(*corner, _COLUMN, _ROW, svg.colour(value / limit), tip)

    cells = [cell(layer, token) for layer in range(n_layers) for token in range(width)]
    labels = [
        svg.text(_LEFT, 14, title, bold=True),
        svg.scale(_LEFT, 26, limit, LABEL),
        *(svg.text(_LEFT - 6, _TOP + _ROW * (n_layers - i) - 3, str(i), "end") for i in range(0, n_layers, 5)),
        *(
            svg.text(_LEFT + _COLUMN * (i + 0.6), bottom + 14, token.strip() or repr(token), "end", angle=-40)
            for i, token in enumerate(tokens)
        ),
        svg.text(14, _TOP + _ROW * n_layers / 2, "layer", "middle", angle=-90),
    ]
    longest = max(len(t) for t in tokens)
    return svg.svg(max(440, _LEFT + _COLUMN * width + 20), bottom + 26 + 5 * longest, [*cells, *labels])
