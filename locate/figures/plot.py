"""Pictures of a localization: which heads, and which layers' neurons."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ...model import Part

if TYPE_CHECKING:
    from ..localization import Localization

RANKS = 40
BEST = 200
OUTLINED = 5
DRAWN, BEYOND = 5000, 10
LABEL = "contrast, share of a fact's effect"
KEPT = "for facts to be kept, share of a fact's effect"
FORGOTTEN = "for facts to be forgotten, share of a fact's effect"


class Picture(Figure):
    """A figure that notebooks show by itself, without pyplot."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()


def plot(localization: Localization, part: Part | None = None) -> Figure:
    """The layer by head heatmap and the best neurons by layer, or the one part that is asked for.

    Colours are centred on zero: red sites serve the forget facts more than the retain facts, blue ones
    the other way round. Of neurons, the 40 best of each layer are shown, and how many of the best 200
    (a tenth, in a model that has fewer than 2,000) lie there.

    Raises:
        UserError: a part that was not scored.
    """
    parts = cast("tuple[Part, ...]", (part,) if part else localization.parts)
    grids = {p: localization.grid(p) for p in parts}
    panels = [panel for p, grid in grids.items() for panel in _panels(p, grid)]
    widths = [width for width, _ in panels]
    n_layers = max(len(grid) for grid in grids.values())
    height = float(np.clip(0.17 * n_layers + 1.4, 3.4, 8.0))
    figure = Picture(figsize=(min(14.0, 1.2 + sum(widths)), height), layout="constrained")
    figure.get_layout_engine().set(wspace=0.04)  # type: ignore[union-attr]
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)[0]
    for ax, (_, draw) in zip(axes, panels, strict=True):
        draw(ax)
        ax.label_outer(remove_inner_ticks=True)
    return figure


def scatter(localization: Localization, part: Part | None = None) -> Figure:
    """What each site does for the facts to be kept, across, and for those to be forgotten, up.

    On the dashed line a site serves both alike: what lies above it is selective; the best five are named where
    there is room. Of more than 1,000 sites, the 5,000 strongest are drawn, and the few that would leave no room
    for the others at the edge.

    Raises:
        UserError: a part that was not scored.
    """
    parts = cast("tuple[Part, ...]", (part,) if part else localization.parts)
    figure = Picture(figsize=(min(14.0, 5.6 * len(parts)), 4.9), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr]
    for ax, name in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        columns = {c: localization.grid(name, c) for c in ("retain", "forget", "score")}
        _scattered(ax, name, *columns.values())
    return figure


def _scattered(ax: Axes, part: str, retain: np.ndarray, forget: np.ndarray, score: np.ndarray) -> None:
    size = np.maximum(np.abs(retain), np.abs(forget)).ravel()
    far = np.argsort(-size, kind="stable")[:DRAWN][::-1]
    many = size.size > 1000
    limit = 1.08 * (float(size[far[-1 - BEYOND * many]]) or 1.0)
    beyond = int((size > limit).sum())
    top = float(np.quantile(np.abs(score.flat[far]), 0.99)) or 1.0
    ax.plot([-limit, limit], [-limit, limit], color="#888888", ls="--", lw=1, zorder=0)
    ax.axhline(0, color="#bbbbbb", lw=0.8, zorder=0)
    ax.axvline(0, color="#bbbbbb", lw=0.8, zorder=0)
    across, up = (np.clip(values.ravel(), -limit, limit) for values in (retain, forget))
    dots = ax.scatter(
        across[far], up[far], c=score.flat[far], norm=TwoSlopeNorm(0.0, -top, top), cmap="RdBu_r", clip_on=False,
        s=14 if many else 26, edgecolor="#666666", linewidth=0.4, rasterized=True, zorder=3,
    )  # fmt: skip
    named: list[tuple[float, float]] = []
    for i in np.argsort(-score, axis=None, kind="stable")[:OUTLINED]:
        at, (layer, unit) = (across[i], up[i]), divmod(int(i), score.shape[1])
        if all(abs(up[i] - y) > limit / 12 or abs(across[i] - x) > limit / 2 for x, y in named):
            below = -9 if up[i] > 0.95 * limit else 4
            ax.annotate(f"L{layer}.{unit}", at, (5, below), textcoords="offset points", size="x-small", zorder=4)
            named.append((float(across[i]), float(up[i])))
    kept = f"the strongest {len(far):,} of {score.size:,}; {beyond} at the edge lie further out" if many else ""
    _titled(ax, names(part), kept or "dashed: the same for both")
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel=KEPT, ylabel=FORGOTTEN)
    ax.set_box_aspect(1)
    ax.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    ax.yaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    ax.spines[["top", "right"]].set_visible(False)
    colours = ax.figure.colorbar(dots, ax=ax, label=LABEL, pad=0.04, shrink=0.7, extend="both")
    colours.locator = MaxNLocator(6, symmetric=True)
    colours.update_ticks()


def names(part: str) -> str:
    """What the units of a part are called in a title."""
    named = {"kv": "Key/value groups", "attn": "Attention", "mlp": "MLPs", "resid": "Residual stream"}
    return named.get(part, f"{part.capitalize()}s")


def _panels(part: str, grid: np.ndarray) -> list[tuple[float, Callable[[Axes], None]]]:
    """Width in inches and drawing of each panel of a part."""
    if part == "neuron":
        return [(3.4, lambda ax: _ranked(ax, grid)), (1.6, lambda ax: _counts(ax, grid))]
    if grid.shape[1] > 1:
        return [(3.2, lambda ax: _heatmap(ax, part, grid))]
    return [(2.0, lambda ax: _bars(ax, part, grid[:, 0]))]


def _heatmap(ax: Axes, part: str, grid: np.ndarray) -> None:
    """Layer by unit, the best five outlined and named."""
    heat(ax, grid, float(np.nanmax(np.abs(grid))))
    order = np.argsort(-grid, axis=None, kind="stable")[:OUTLINED]
    best = [divmod(int(i), grid.shape[1]) for i in order if grid.flat[i] > 0]
    for layer, unit in best:
        ax.add_patch(Rectangle((unit - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.4))
    _titled(ax, names(part), "best: " + ", ".join(f"L{layer}.{unit}" for layer, unit in best))
    _labelled(ax, names(part).removesuffix("s").lower())


def _ranked(ax: Axes, grid: np.ndarray) -> None:
    """Each layer's neurons from the best down: a few very strong ones do not wash out the others."""
    best = -np.sort(-grid, axis=1)[:, :RANKS]
    limit = float(np.nanquantile(np.abs(best), 0.99))
    image = heat(ax, best, limit, extend="max" if np.nanmax(best) > limit else "neither")
    image.set_extent((0.5, best.shape[1] + 0.5, -0.5, len(best) - 0.5))
    _titled(ax, "Neurons", f"each layer's best {best.shape[1]}, the strongest at rank 1")
    _labelled(ax, "rank within the layer")


def _counts(ax: Axes, grid: np.ndarray) -> None:
    """How many of the model's best neurons lie in each layer."""
    k = min(BEST, max(1, grid.size // 10))
    best = np.argsort(-grid, axis=None, kind="stable")[:k] // grid.shape[1]
    ax.barh(range(len(grid)), np.bincount(best, minlength=len(grid)), color="#b2182b", height=0.8)
    _titled(ax, "By layer", f"of the best {k}")
    _labelled(ax, "neurons", bins=4)


def _bars(ax: Axes, part: str, scores: np.ndarray) -> None:
    """One number a layer, for a part that is whole within its layer."""
    ax.barh(range(len(scores)), scores, color=np.where(scores > 0, "#b2182b", "#2166ac"), height=0.8)
    ax.axvline(0, color="black", linewidth=0.8)
    limit = 1.08 * (float(np.nanmax(np.abs(scores))) or 1.0)
    ax.set_xlim(-limit, limit)
    _titled(ax, names(part), "one score a layer")
    _labelled(ax, "contrast", bins=4, integer=False)


def heat(ax: Axes, values: np.ndarray, limit: float, label: str = LABEL, **bar: Any) -> AxesImage:
    """Values by layer, layer 0 at the bottom, white at zero."""
    limit = limit or 1.0
    norm = TwoSlopeNorm(0.0, -limit, limit)
    image = ax.imshow(values, norm=norm, cmap="RdBu_r", aspect="auto", origin="lower", interpolation="nearest")
    colours = ax.figure.colorbar(image, ax=ax, label=label, pad=0.02, **bar)
    colours.locator = MaxNLocator(6, symmetric=True)
    colours.update_ticks()
    return image


def _titled(ax: Axes, title: str, caption: str) -> None:
    """A bold title with a line of small print under it."""
    ax.set_title(caption, loc="left", size="small", color="#555555")
    ax.annotate(
        title, (0, 1), xytext=(0, 21), xycoords="axes fraction", textcoords="offset points", weight="bold"
    ).set_in_layout(True)


def _labelled(ax: Axes, x: str, *, bins: int = 10, integer: bool = True) -> None:
    ax.set(xlabel=x, ylabel="layer (0 is next to the input)")
    ax.xaxis.set_major_locator(MaxNLocator(bins, integer=integer, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4), useMathText=True)
    ax.spines[["top", "right"]].set_visible(False)
