"""Draw a circuit's strongest edges, from the embedding at the bottom to the logits at the top."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from ...model.run.wiring import Wiring
from ..record import SHARE
from . import svg
from .plot import SCORE, Picture

_NODE = re.compile(
    r"(?:a(?P<layer>\d+)\.(?P<kind>h|kv)(?P<unit>\d+)|m(?P<mlp>\d+)|input|logits)(?:<(?P<reads>[qkv])>)?"
)
_STEP, _WIDE, _LEFT, _TOP = 46, 62, 76, 84
Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Coordinates of a circuit: heads run across by number, with MLPs on their right; layers run upwards.

    Attributes:
        nodes: each node's point, by name.
        rows: the label of each height.
        columns: the label of each horizontal position.
        edges: the edges to draw, weakest first.
        curves: the three points of each edge.
        groups: lines from each key/value group to its heads.
        limit: the largest score, at which the colour scale ends.
    """

    nodes: dict[str, Point]
    rows: tuple[str, ...]
    columns: dict[float, str]
    edges: pd.DataFrame
    curves: tuple[tuple[Point, Point, Point], ...]
    groups: tuple[tuple[Point, Point], ...]
    limit: float


def layout(edges: pd.DataFrame, wires: Wiring, by: str) -> Layout:
    """Place edges, given strongest first, and their nodes."""
    edges = edges.iloc[::-1]
    heads, group = _heads_per_layer(wires), _heads_per_group(wires)
    names = dict.fromkeys([*edges["source"], *(_node(t) for t in edges["target"])])
    layers = sorted({layer for name in names if (layer := _layer(name)) is not None})
    levels = [*(["input"] if "input" in names else []), *layers, *(["logits"] if "logits" in names else [])]
    heights = {level: float(i) for i, level in enumerate(levels)}
    nodes = {name: _place(name, heights, heads, group) for name in names}
    pairs = list(zip(edges["source"], edges["target"], strict=True))
    columns = {float(u): str(u) for u in range(0, heads, 1 if heads <= 16 else 4)} | {heads + 0.5: "MLP"}
    return Layout(
        nodes,
        tuple("embedding" if r == "input" else str(r) for r in levels),
        columns,
        edges,
        tuple(_curve(nodes[a], nodes[_node(b)], _reads(b)) for a, b in pairs),
        tuple(_groups(nodes, group)),
        float(edges[by].abs().max()) or 1.0,
    )


def plot_circuit(edges: pd.DataFrame, wires: Wiring, by: str) -> Figure:
    """Draw edges as a figure. Red edges serve the forget facts more than the retain facts, blue edges less.

    Args:
        edges: rows of a circuit's frame, strongest first.
        by: the column of scores.
    """
    drawn = layout(edges, wires, by)
    heads = max(drawn.columns)
    figure = Picture(figsize=(8.6, float(np.clip(0.42 * len(drawn.rows) + 1.6, 3.6, 12))), layout="constrained")
    ax = figure.subplots()
    norm = TwoSlopeNorm(0.0, -drawn.limit, drawn.limit)
    for i in range(0, len(drawn.rows), 2):
        ax.axhspan(i - 0.5, i + 0.5, color="#f3f3f3", zorder=0)
    for score, curve in zip(drawn.edges[by], drawn.curves, strict=True):
        wide = 0.6 + 3.4 * abs(score) / drawn.limit
        path = Path(curve, [Path.MOVETO, Path.CURVE3, Path.CURVE3])
        edge = PathPatch(path, fill=False, edgecolor=colormaps["RdBu_r"](norm(score)), linewidth=wide, capstyle="round")
        edge.set_path_effects([withStroke(linewidth=wide + 0.7, foreground="#999999")])
        ax.add_patch(edge)
    for a, b in drawn.groups:
        ax.plot(*zip(a, b, strict=True), color="#999999", lw=0.8, ls=":", zorder=1.5)
    for name, (x, y) in drawn.nodes.items():
        box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "#444444", "linewidth": 0.8}
        ax.text(x, y, _short(name), ha="center", va="center", size=7.5, bbox=box, zorder=3)
    ax.set(xlim=(-1.2, heads + 1.7), ylim=(-0.7, len(drawn.rows) - 0.3), xlabel="head", ylabel="layer")
    ax.set_xticks(list(drawn.columns), list(drawn.columns.values()))
    ax.set_yticks(range(len(drawn.rows)), drawn.rows)
    ax.tick_params(length=0)
    ax.spines[["top", "right", "left", "bottom"]].set_visible(False)
    ax.set_title(_title(edges, wires), loc="left", size="small", color="#555555")
    bar = figure.colorbar(ScalarMappable(norm, "RdBu_r"), ax=ax, label=_label(by), pad=0.01, shrink=0.7)
    bar.locator = MaxNLocator(6, symmetric=True)
    bar.update_ticks()
    return figure


def circuit_html(edges: pd.DataFrame, wires: Wiring, by: str, totals: pd.Series) -> str:
    """Draw edges as an SVG fragment. A tooltip gives the scores of each edge and node.

    Args:
        edges: rows of a circuit's frame, strongest first.
        by: the column of scores.
        totals: by node, the sum over the edges that leave it.
    """
    drawn = layout(edges, wires, by)
    height = _STEP * len(drawn.rows)

    def at(point: Point) -> Point:
        return _LEFT + _WIDE * (point[0] + 1), _TOP + height - _STEP * (point[1] + 0.7)

    def edge(row: Any, curve: tuple[Point, ...]) -> str:
        (a, b), (c, d), (e, f) = (at(p) for p in curve)
        score = getattr(row, by)
        wide, path = 1 + 5 * abs(score) / drawn.limit, f"M{a:.1f} {b:.1f}Q{c:.1f} {d:.1f} {e:.1f} {f:.1f}"
        lines = ((wide + 1, "#999"), (wide, svg.colour(score / drawn.limit)), (max(wide, 9), "transparent"))
        strokes = "".join(f'<path d="{path}" stroke="{colour}" stroke-width="{w:.1f}"/>' for w, colour in lines)
        return f'<g fill="none" stroke-linecap="round">{strokes}<title>{escape(_tip(row))}</title></g>'

    def node(name: str, place: Point) -> str:
        x, y = at(place)
        total = f"\nedges that leave it: {totals[name]:+.4f}" if name in totals else ""
        wide = 8 + 7 * len(_short(name))
        corner = f'x="{x - wide / 2:.1f}" y="{y - 9:.1f}"'
        box = f'<rect {corner} width="{wide}" height="18" rx="5" fill="#fff" stroke="#444"/>'
        tip = escape(f"{_long(name)}{total}")
        return f"<g>{box}{svg.text(x, y + 4, _short(name), 'middle')}<title>{tip}</title></g>"

    right = at((max(drawn.columns) + 1.7, 0))[0]
    parts = [
        svg.text(_LEFT - 58, 16, _title(edges, wires), bold=True),
        svg.scale(_LEFT, 32, drawn.limit, _label(by)),
        *(_band(at((-0.7, i + 0.5)), right - 12) for i in range(0, len(drawn.rows), 2)),
        *(svg.text(_LEFT, at((0, i))[1] + 4, row, "end") for i, row in enumerate(drawn.rows)),
        *(svg.text(at((x, 0))[0], _TOP + height + 18, name, "middle") for x, name in drawn.columns.items()),
        svg.text(at((max(drawn.columns) / 2, 0))[0], _TOP + height + 36, "head", "middle"),
        svg.text(14, _TOP + height / 2, "layer", "middle", angle=-90),
        *(svg.line(*at(a), *at(b), dash="2", stroke="#999") for a, b in drawn.groups),
        *(edge(row, curve) for row, curve in zip(drawn.edges.itertuples(), drawn.curves, strict=True)),
        *(node(name, place) for name, place in drawn.nodes.items()),
    ]
    return svg.svg(right, _TOP + height + 46, parts)


def _band(corner: Point, right: float) -> str:
    """The background of a layer."""
    x, y = corner
    return f'<path d="M{x:.0f} {y:.0f}H{right:.0f}v{_STEP}H{x:.0f}z" fill="#f3f3f3"/>'


def _node(name: str) -> str:
    return name.partition("<")[0]


def _reads(name: str) -> str:
    return name.partition("<")[2].removesuffix(">")


def _read(name: str) -> Mapping[str, str | None]:
    found = _NODE.fullmatch(name)
    assert found, f"{name!r} is not the name of a node"
    return found.groupdict()


def _layer(name: str) -> int | None:
    read = _read(name)
    layer = read["layer"] or read["mlp"]
    return None if layer is None else int(layer)


def _heads_per_layer(wires: Wiring) -> int:
    return sum(name.startswith("a0.") for name in wires.sources)


def _heads_per_group(wires: Wiring) -> int:
    groups = sum(name.startswith("a0.kv") and name.endswith("<k>") for name in wires.targets)
    return _heads_per_layer(wires) // groups if groups else 1


def _place(name: str, heights: Mapping[int | str, float], heads: int, group: int) -> Point:
    read, layer = _read(name), _layer(name)
    if layer is None:
        return (heads - 1) / 2, heights[name]
    if read["mlp"]:
        return heads + 0.5, heights[layer] + 0.25
    unit = int(read["unit"] or 0)
    if read["kind"] == "kv":
        return unit * group + (group - 1) / 2, heights[layer] - 0.3
    return float(unit), heights[layer] + 0.14


def _curve(a: Point, b: Point, reads: str) -> tuple[Point, Point, Point]:
    """Bend long edges more, so that edges within a column, or into one head, do not overlap."""
    (x, y), (z, w) = a, b
    side = {"k": -0.35, "v": 0.35}.get(reads, 0.0)
    bend = 0.12 * (w - y) + 0.15 if abs(z - x) < 0.5 else 0.05 * (w - y)
    return a, ((x + z) / 2 + bend + side, (y + w) / 2), b


def _groups(nodes: Mapping[str, Point], size: int) -> Iterator[tuple[Point, Point]]:
    """Lines from each key/value group to those of its heads that have a node."""
    for name, place in nodes.items():
        if (read := _read(name))["kind"] == "kv":
            first = int(read["unit"] or 0) * size
            heads = (f"a{read['layer']}.h{i}" for i in range(first, first + size))
            yield from ((place, nodes[head]) for head in heads if head in nodes)


def _short(name: str) -> str:
    read = _read(name)
    if read["kind"]:
        return f"{read['kind']}{read['unit']}"
    return f"m{read['mlp']}" if read["mlp"] else "embedding" if name == "input" else name


def _long(name: str) -> str:
    read = _read(name)
    match read["kind"]:
        case "h":
            return f"layer {read['layer']}, head {read['unit']}"
        case "kv":
            return f"layer {read['layer']}, key/value group {read['unit']}"
    return f"layer {read['mlp']}, MLP" if read["mlp"] else "embedding" if name == "input" else name


def _title(edges: pd.DataFrame, wires: Wiring) -> str:
    return f"The {len(edges)} strongest of {int(wires.real.sum()):,} edges, which run upwards"


def _label(by: str) -> str:
    return f"{by}, in log-odds" if by == "raw" else f"{SCORE if by == 'score' else by}, {SHARE}"


def _tip(row: Any) -> str:
    return (
        f"{row.source} \u2192 {row.target}\ncontrast {row.score:+.4f} ({row.low:+.4f} to {row.high:+.4f})\n"
        f"forget {row.forget:+.4f}, retain {row.retain:+.4f}\n"
        f"among the best in {row.frequency:.0%} of resamples, q {row.q:.2f}"
    )
