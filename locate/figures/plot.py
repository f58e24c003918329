"""Draw the scores of heads and of each layer's best neurons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import TwoSlopeNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

RANKS = 40
BEST = 200
OUTLINED = 5
DRAWN, BEYOND = 5000, 10
FAINT = 0.25  # the opacity of sites whose interval spans zero
SCORE, RETAIN, FORGET = "contrast", "effect on facts to keep", "effect on facts to forget"  # a unit follows
TITLES = {"kv": "Key/value groups", "attn": "Attention", "mlp": "MLPs", "resid": "Residual stream"}


@dataclass(frozen=True)
class Evidence:
    """The scores of a part's sites with their intervals, and which sites are chosen, `[layer, unit]` each.

    `unit`: what the scores are measured in.
    """

    score: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chosen: np.ndarray
    unit: str

    @property
    def opacity(self) -> np.ndarray:
        """One for a site whose interval leaves out zero, `FAINT` for another."""
        return np.where((self.low <= 0) & (self.high >= 0), FAINT, 1.0)


@dataclass(frozen=True)
class Sides:
    """What the sites of a part do for each group of facts, and the contrast between the two, `[layer, unit]` each.

    `unit`: what they are measured in.
    """

    forget: np.ndarray
    retain: np.ndarray
    score: np.ndarray
    unit: str


class Picture(Figure):
    """A figure that notebooks display without pyplot."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()


def plot_scores(parts: Mapping[str, Evidence]) -> Figure:
    """Draw a layer-by-head heatmap and the best neurons of each layer.

    Colours are centred on zero. Red sites serve the forget facts more than the retain facts, blue sites less. Sites
    whose interval spans zero are faint, chosen sites are outlined. For neurons, the figure shows each layer's best 40,
    and how many of the chosen ones lie in each layer.
    """
    panels = [panel for part, of in parts.items() for panel in _panels(part, of)]
    widths = [width for width, _ in panels]
    n_layers = max(len(of.score) for of in parts.values())
    height = float(np.clip(0.17 * n_layers + 1.4, 3.4, 8.0))
    figure = Picture(figsize=(min(14.0, 1.2 + sum(widths)), height), layout="constrained")
    figure.get_layout_engine().set(wspace=0.04)  # type: ignore[union-attr]
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)[0]
    for ax, (_, draw) in zip(axes, panels, strict=True):
        draw(ax)
        ax.label_outer(remove_inner_ticks=True)
    figure.supxlabel("faint: the interval spans zero; outlined: chosen", fontsize="small", color="#555555")
    return figure


def plot_sides(parts: Mapping[str, Sides]) -> Figure:
    """Draw each site by its effect on the facts to keep (across) and on the facts to forget (up).

    Sites on the dashed line serve both groups equally; sites above it are selective. The best five are labelled
    where there is room. Of more than 1,000 sites, the figure shows the 5,000 strongest. It draws the ten strongest of
    these at the edge, so that they do not squeeze the others.

    Args:
        parts: both effects and the contrast, by part.
    """
    figure = Picture(figsize=(min(14.0, 5.6 * len(parts)), 4.9), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr]
    for ax, (part, sides) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts.items(), strict=True):
        _scatter(ax, part, sides)
    return figure


def _scatter(ax: Axes, part: str, sides: Sides) -> None:
    size = np.maximum(np.abs(sides.forget), np.abs(sides.retain)).ravel()
    score = sides.score
    strongest = np.argsort(-size, kind="stable")[:DRAWN][::-1]
    many = size.size > 1000
    limit = 1.08 * (float(size[strongest[-1 - BEYOND * many]]) or 1.0)
    beyond = int((size > limit).sum())
    top = float(np.quantile(np.abs(score.flat[strongest]), 0.99)) or 1.0
    ax.plot([-limit, limit], [-limit, limit], color="#888888", ls="--", lw=1, zorder=0)
    ax.axhline(0, color="#bbbbbb", lw=0.8, zorder=0)
    ax.axvline(0, color="#bbbbbb", lw=0.8, zorder=0)
    across, up = (np.clip(values.ravel(), -limit, limit) for values in (sides.retain, sides.forget))
    dots = ax.scatter(
        across[strongest], up[strongest], c=score.flat[strongest], norm=TwoSlopeNorm(0.0, -top, top), cmap="RdBu_r",
        clip_on=False, s=14 if many else 26, edgecolor="#666666", linewidth=0.4, rasterized=True, zorder=3,
    )  # fmt: skip
    _label_best(ax, score, across, up, limit)
    caption = (
        f"the strongest {len(strongest):,} of {score.size:,}; {beyond} at the edge lie farther out" if many else ""
    )
    _set_title(ax, part_title(part), caption or "dashed: equal for both")
    across_label, up_label = (f"{effect}, {sides.unit}" for effect in (RETAIN, FORGET))
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel=across_label, ylabel=up_label)
    ax.set_box_aspect(1)
    ax.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    ax.yaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    ax.spines[["top", "right"]].set_visible(False)
    bar = ax.figure.colorbar(dots, ax=ax, label=f"{SCORE}, {sides.unit}", pad=0.04, shrink=0.7, extend="both")
    bar.locator = MaxNLocator(6, symmetric=True)
    bar.update_ticks()


def _label_best(ax: Axes, score: np.ndarray, across: np.ndarray, up: np.ndarray, limit: float) -> None:
    """Label the best five sites, except where a label would cover another."""
    labels: list[tuple[float, float]] = []
    for i in np.argsort(-score, axis=None, kind="stable")[:OUTLINED]:
        at, (layer, unit) = (across[i], up[i]), divmod(int(i), score.shape[1])
        if all(abs(up[i] - y) > limit / 12 or abs(across[i] - x) > limit / 2 for x, y in labels):
            shift = -9 if up[i] > 0.95 * limit else 4
            ax.annotate(f"L{layer}.{unit}", at, (5, shift), textcoords="offset points", size="x-small", zorder=4)
            labels.append((float(across[i]), float(up[i])))


def part_title(part: str) -> str:
    """The name of a part's units in a title."""
    return TITLES.get(part, f"{part.capitalize()}s")


def best_sites(grid: np.ndarray, part: str) -> np.ndarray:
    """The sites that a figure outlines if none are named: bool `[layer, unit]`.

    They are the best 200 neurons, or the best tenth of fewer than 2,000; or the best five sites of another part.
    """
    k = min(BEST, max(1, grid.size // 10)) if part == "neuron" else OUTLINED
    best = np.argsort(-grid, axis=None, kind="stable")[:k]
    out = np.zeros(grid.shape, bool)
    out.flat[[i for i in best if part == "neuron" or grid.flat[i] > 0]] = True
    return out


def _panels(part: str, of: Evidence) -> list[tuple[float, Callable[[Axes], None]]]:
    """The width in inches and the drawing function of each panel of a part."""
    if part == "neuron":
        return [(3.4, lambda ax: _draw_ranks(ax, of)), (1.6, lambda ax: _draw_counts(ax, of))]
    if of.score.shape[1] > 1:
        return [(3.2, lambda ax: _draw_heatmap(ax, part, of))]
    return [(2.0, lambda ax: _draw_bars(ax, part, of))]


def _draw_heatmap(ax: Axes, part: str, of: Evidence) -> None:
    """Draw layer by unit; outline the chosen sites and name the best five of them."""
    heat(ax, of.score, float(np.nanmax(np.abs(of.score))), f"{SCORE}, {of.unit}", alpha=of.opacity)
    _outline(ax, of.chosen, 1.4)
    best = [i for i in np.argsort(-of.score, axis=None, kind="stable") if of.chosen.flat[i]][:OUTLINED]
    names = ", ".join(f"L{layer}.{unit}" for layer, unit in (divmod(int(i), of.score.shape[1]) for i in best))
    _set_title(ax, part_title(part), f"best: {names}" if names else "none above zero")
    _label_axes(ax, part_title(part).removesuffix("s").lower())


def _draw_ranks(ax: Axes, of: Evidence) -> None:
    """Draw each layer's best neurons in falling order.

    The colour scale ends at the 99th percentile, so that a few very strong neurons do not hide the others.
    """
    order = np.argsort(-of.score, axis=1, kind="stable")[:, :RANKS]
    best, opacity, chosen = (np.take_along_axis(a, order, 1) for a in (of.score, of.opacity, of.chosen))
    limit = float(np.nanquantile(np.abs(best), 0.99))
    extend = "max" if np.nanmax(best) > limit else "neither"
    image = heat(ax, best, limit, f"{SCORE}, {of.unit}", extend=extend, alpha=opacity)
    image.set_extent((0.5, best.shape[1] + 0.5, -0.5, len(best) - 0.5))
    _outline(ax, chosen, 0.5, start=1)
    _set_title(ax, "Neurons", f"each layer's best {best.shape[1]}, from rank 1")
    _label_axes(ax, "rank within the layer")


def _outline(ax: Axes, chosen: np.ndarray, width: float, *, start: int = 0) -> None:
    """Draw a frame around each chosen cell; the first column stands at `start`."""
    frames = [Rectangle((unit + start - 0.5, layer - 0.5), 1, 1) for layer, unit in np.argwhere(chosen)]
    ax.add_collection(PatchCollection(frames, facecolor="none", edgecolor="black", linewidth=width))


def _draw_counts(ax: Axes, of: Evidence) -> None:
    """Draw how many of the chosen neurons lie in each layer."""
    counts = of.chosen.sum(1)
    ax.barh(range(len(counts)), counts, color="#b2182b", height=0.8)
    _set_title(ax, "By layer", f"of the {counts.sum():,} outlined")
    _label_axes(ax, "neurons", bins=4)


def _draw_bars(ax: Axes, part: str, of: Evidence) -> None:
    """Draw one bar a layer with its interval, for a part without units."""
    scores, low, high, opacity = (a[:, 0] for a in (of.score, of.low, of.high, of.opacity))
    colours = [(*to_rgb("#b2182b" if s > 0 else "#2166ac"), a) for s, a in zip(scores, opacity, strict=True)]
    layers = range(len(scores))
    ax.barh(layers, scores, color=colours, height=0.8)
    ax.hlines(layers, low, high, color="black", linewidth=0.8)
    ax.axvline(0, color="black", linewidth=0.8)
    limit = 1.08 * (float(np.nanmax(np.abs([scores, low, high]))) or 1.0)
    ax.set_xlim(-limit, limit)
    _set_title(ax, part_title(part), "one score a layer")
    _label_axes(ax, "contrast", bins=4, integer=False)


def heat(
    ax: Axes, values: np.ndarray, limit: float, label: str, *, alpha: np.ndarray | None = None, **options: Any
) -> AxesImage:
    """Draw values by layer, with layer 0 at the bottom and white at zero."""
    limit = limit or 1.0
    norm = TwoSlopeNorm(0.0, -limit, limit)
    look = {"norm": norm, "cmap": "RdBu_r"}
    image = ax.imshow(values, aspect="auto", origin="lower", interpolation="nearest", alpha=alpha, **look)
    bar = ax.figure.colorbar(ScalarMappable(**look), ax=ax, label=label, pad=0.02, **options)
    bar.locator = MaxNLocator(6, symmetric=True)
    bar.update_ticks()
    return image


def _set_title(ax: Axes, title: str, caption: str) -> None:
    """Set a bold title with a line of small print below it."""
    ax.set_title(caption, loc="left", size="small", color="#555555")
    ax.annotate(
        title, (0, 1), xytext=(0, 21), xycoords="axes fraction", textcoords="offset points", weight="bold"
    ).set_in_layout(True)


def _label_axes(ax: Axes, x: str, *, bins: int = 10, integer: bool = True) -> None:
    ax.set(xlabel=x, ylabel="layer (0 is next to the input)")
    ax.xaxis.set_major_locator(MaxNLocator(bins, integer=integer, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4), useMathText=True)
    ax.spines[["top", "right"]].set_visible(False)
