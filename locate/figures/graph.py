"""Pictures of a circuit: the strongest edges between the embedding at the bottom and the logits at the top."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

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

from . import svg
from .plot import LABEL, Picture

if TYPE_CHECKING:
    from ..circuit import Circuit

_NODE = re.compile(
    r"(?:a(?P<layer>\d+)\.(?P<kind>h|kv)(?P<unit>\d+)|m(?P<mlp>\d+)|input|logits)(?:<(?P<reads>[qkv])>)?"
)
_STEP, _WIDE, _LEFT, _TOP = 46, 62, 76, 84
Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Where everything is drawn: across, heads by number and the MLPs right of them; upwards, the layers shown.

    `nodes`: place by name. `rows`: what each height is called. `columns`: what stands below. `edges` are those
    shown, the weakest first, with `curves` the three points of each.
    """

    nodes: dict[str, Point]
    rows: tuple[str, ...]
    columns: dict[float, str]
    edges: pd.DataFrame
    curves: tuple[tuple[Point, Point, Point], ...]
    groups: tuple[tuple[Point, Point], ...]
    limit: float


def layout(circuit: Circuit, k: int, by: str) -> Layout:
    """Place the `k` edges whose score is furthest from zero, and their nodes."""
    edges = circuit.strongest(k, by=by).iloc[::-1]
    heads = _heads_by_layer(circuit)
    names = dict.fromkeys([*edges["source"], *(_node(t) for t in edges["target"])])
    layers = sorted({layer for name in names if (layer := _layer(name)) is not None})
    levels = [*(["input"] if "input" in names else []), *layers, *(["logits"] if "logits" in names else [])]
    heights = {level: float(i) for i, level in enumerate(levels)}
    nodes = {name: _place(name, heights, heads, _shared(circuit)) for name in names}
    pairs = list(zip(edges["source"], edges["target"], strict=True))
    shown = {u: str(u) for u in range(heads)} if heads <= 16 else {u: str(u) for u in range(0, heads, 4)}
    columns = {float(u): name for u, name in shown.items()} | {heads + 0.5: "MLP"}
    return Layout(
        nodes,
        tuple("embedding" if r == "input" else str(r) for r in levels),
        columns,
        edges,
        tuple(_curve(nodes[a], nodes[_node(b)], _reads(b)) for a, b in pairs),
        tuple(_groups(nodes, heads, circuit)),
        float(edges[by].abs().max()) or 1.0,
    )


def plot(circuit: Circuit, k: int, by: str) -> Figure:
    """The picture for print; red edges carry the forget facts more than the retain facts, blue ones less."""
    seen = layout(circuit, k, by)
    heads = max(seen.columns)
    figure = Picture(figsize=(8.6, float(np.clip(0.42 * len(seen.rows) + 1.6, 3.6, 12))), layout="constrained")
    ax = figure.subplots()
    norm = TwoSlopeNorm(0.0, -seen.limit, seen.limit)
    for i in range(0, len(seen.rows), 2):
        ax.axhspan(i - 0.5, i + 0.5, color="#f3f3f3", zorder=0)
    for score, curve in zip(seen.edges[by], seen.curves, strict=True):
        wide = 0.6 + 3.4 * abs(score) / seen.limit
        path = Path(curve, [Path.MOVETO, Path.CURVE3, Path.CURVE3])
        edge = PathPatch(path, fill=False, edgecolor=colormaps["RdBu_r"](norm(score)), linewidth=wide, capstyle="round")
        edge.set_path_effects([withStroke(linewidth=wide + 0.7, foreground="#999999")])
        ax.add_patch(edge)
    for a, b in seen.groups:
        ax.plot(*zip(a, b, strict=True), color="#999999", lw=0.8, ls=":", zorder=1.5)
    for name, (x, y) in seen.nodes.items():
        box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "#444444", "linewidth": 0.8}
        ax.text(x, y, _short(name), ha="center", va="center", size=7.5, bbox=box, zorder=3)
    ax.set(xlim=(-1.2, heads + 1.7), ylim=(-0.7, len(seen.rows) - 0.3), xlabel="head", ylabel="layer")
    ax.set_xticks(list(seen.columns), list(seen.columns.values()))
    ax.set_yticks(range(len(seen.rows)), seen.rows)
    ax.tick_params(length=0)
    ax.spines[["top", "right", "left", "bottom"]].set_visible(False)
    ax.set_title(_title(circuit, k), loc="left", size="small", color="#555555")
    bar = figure.colorbar(ScalarMappable(norm, "RdBu_r"), ax=ax, label=_label(by), pad=0.01, shrink=0.7)
    bar.locator = MaxNLocator(6, symmetric=True)
    bar.update_ticks()
    return figure


def html(circuit: Circuit, k: int, by: str) -> str:
    """The picture as an SVG fragment, with each edge's and node's scores under the pointer."""
    seen = layout(circuit, k, by)
    height = _STEP * len(seen.rows)
    totals = circuit.nodes(by)

    def at(point: Point) -> Point:
        return _LEFT + _WIDE * (point[0] + 1), _TOP + height - _STEP * (point[1] + 0.7)

    def edge(row: Any, curve: tuple[Point, ...]) -> str:
        (a, b), (c, d), (e, f) = (at(p) for p in curve)
        score = getattr(row, by)
        wide, way = 1 + 5 * abs(score) / seen.limit, f"M{a:.1f} {b:.1f}Q{c:.1f} {d:.1f} {e:.1f} {f:.1f}"
        lines = ((wide + 1, "#999"), (wide, svg.colour(score / seen.limit)), (max(wide, 9), "transparent"))
        drawn = "".join(f'<path d="{way}" stroke="{colour}" stroke-width="{w:.1f}"/>' for w, colour in lines)
        return f'<g fill="none" stroke-linecap="round">{drawn}<title>{escape(_tip(row))}</title></g>'

    def node(name: str, place: Point) -> str:
        x, y = at(place)
        total = f"\nedges that leave it: {totals[name]:+.4f}" if name in totals else ""
        wide = 8 + 7 * len(_short(name))
        corner = f'x="{x - wide / 2:.1f}" y="{y - 9:.1f}"'
        box = f'<rect {corner} width="{wide}" height="18" rx="5" fill="#fff" stroke="#444"/>'
        tip = escape(f"{_long(name)}{total}")
        return f"<g>{box}{svg.text(x, y + 4, _short(name), 'middle')}<title>{tip}</title></g>"

    right = at((max(seen.columns) + 1.7, 0))[0]
    parts = [
        svg.text(_LEFT - 58, 16, _title(circuit, k), bold=True),
        svg.scale(_LEFT, 32, seen.limit, _label(by)),
        *(_band(at((-0.7, i + 0.5)), right - 12) for i in range(0, len(seen.rows), 2)),
        *(svg.text(_LEFT, at((0, i))[1] + 4, row, "end") for i, row in enumerate(seen.rows)),
        *(svg.text(at((x, 0))[0], _TOP + height + 18, name, "middle") for x, name in seen.columns.items()),
        svg.text(at((max(seen.columns) / 2, 0))[0], _TOP + height + 36, "head", "middle"),
        svg.text(14, _TOP + height / 2, "layer", "middle", angle=-90),
        *(svg.line(*at(a), *at(b), dash="2", stroke="#999") for a, b in seen.groups),
        *(edge(row, curve) for row, curve in zip(seen.edges.itertuples(), seen.curves, strict=True)),
        *(node(name, place) for name, place in seen.nodes.items()),
    ]
    return svg.svg(right, _TOP + height + 46, parts)


def _band(corner: Point, right: float) -> str:
    """A layer's ground."""
    x, y = corner
    return f'<path d="M{x:.0f} {y:.0f}H{right:.0f}v{_STEP}H{x:.0f}z" fill="#f3f3f3"/>'


def _node(name: str) -> str:
    return name.partition("<")[0]


def _reads(name: str) -> str:
    return name.partition("<")[2].removesuffix(">")


def _read(name: str) -> Mapping[str, str | None]:
    found = _NODE.fullmatch(name)
    assert found, f"{name!r} is a node of a wiring"
    return found.groupdict()


def _layer(name: str) -> int | None:
    read = _read(name)
    layer = read["layer"] or read["mlp"]
    return None if layer is None else int(layer)


def _heads_by_layer(circuit: Circuit) -> int:
    return sum(name.startswith("a0.") for name in circuit.wiring.sources)


def _shared(circuit: Circuit) -> int:
    """How many heads share a key."""
    shared = sum(name.startswith("a0.kv") and name.endswith("<k>") for name in circuit.wiring.targets)
    return _heads_by_layer(circuit) // shared if shared else 1


def _place(name: str, heights: Mapping[Any, float], heads: int, shared: int) -> Point:
    read, layer = _read(name), _layer(name)
    if layer is None:
        return (heads - 1) / 2, heights[name]
    if read["mlp"]:
        return heads + 0.5, heights[layer] + 0.25
    unit = int(read["unit"] or 0)
    if read["kind"] == "kv":
        return unit * shared + (shared - 1) / 2, heights[layer] - 0.3
    return float(unit), heights[layer] + 0.14


def _curve(a: Point, b: Point, reads: str) -> tuple[Point, Point, Point]:
    """Bent, the more the longer, so that edges of one column and those to one head lie apart."""
    (x, y), (z, w) = a, b
    side = {"k": -0.35, "v": 0.35}.get(reads, 0.0)
    bend = 0.12 * (w - y) + 0.15 if abs(z - x) < 0.5 else 0.05 * (w - y)
    return a, ((x + z) / 2 + bend + side, (y + w) / 2), b


def _groups(nodes: Mapping[str, Point], heads: int, circuit: Circuit) -> Iterator[tuple[Point, Point]]:
    """From each key/value group to those of its heads that are shown."""
    size = _shared(circuit)
    for name, place in nodes.items():
        if (read := _read(name))["kind"] == "kv":
            first = int(read["unit"] or 0) * size
            own = (f"a{read['layer']}.h{i}" for i in range(first, first + size))
            yield from ((place, nodes[head]) for head in own if head in nodes)


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


def _title(circuit: Circuit, k: int) -> str:
    return f"The {k} strongest of {len(circuit.frame):,} edges; what is written below is read above"


def _label(by: str) -> str:
    return LABEL if by == "score" else f"{by}, in log-odds" if by == "raw" else f"{by}, share of a fact's effect"


def _tip(row: Any) -> str:
    return (
        f"{row.source} \u2192 {row.target}\ncontrast {row.score:+.4f} ({row.low:+.4f} to {row.high:+.4f})\n"
        f"forget {row.forget:+.4f}, retain {row.retain:+.4f}\nchosen in {row.frequency:.0%} of resamples, q {row.q:.2f}"
    )
