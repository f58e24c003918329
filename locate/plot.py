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

from ..model import Part

if TYPE_CHECKING:
    from .localization import Localization

RANKS = 40
BEST = 200
OUTLINED = 5
LABEL = "contrast, share of a fact's effect"


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
    panels = [panel for name, grid in grids.items() for panel in _panels(name, grid)]
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
    names = "key/value groups" if part == "kv" else f"{part}s"
    _titled(ax, names.capitalize(), "best: " + ", ".join(f"L{layer}.{unit}" for layer, unit in best))
    _labelled(ax, names.removesuffix("s"))


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
    _titled(ax, {"attn": "Attention", "mlp": "MLPs", "resid": "Residual stream"}.get(part, part), "one score a layer")
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
