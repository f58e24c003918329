"""Draw faithfulness over circuit size."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from .plot import Picture


def plot_faithfulness(sizes: np.ndarray, values: np.ndarray, size_label: str, title: str) -> Figure:
    """Draw the mean over facts in red and each fact in grey.

    Args:
        sizes: shares of the sites, `[size]`.
        values: faithfulness `[size, fact]`.
    """
    figure = Picture(figsize=(5.6, 3.4), layout="constrained")
    ax = figure.subplots()
    ax.plot(100 * sizes, values, color="#999999", lw=0.6, alpha=0.6)
    ax.plot(100 * sizes, values.mean(1), color="#b2182b", lw=2.2, marker="o")
    for level in (0, 1):
        ax.axhline(level, color="black", lw=0.8, ls=":")
    ax.set(xscale="log", xlabel=size_label, ylabel="faithfulness f (1 = whole model)")
    ax.set_ylim(*np.clip([values.min() - 0.1, values.max() + 0.1], -1, 2))
    ax.set_title(title, loc="left", size="small")
    ax.spines[["top", "right"]].set_visible(False)
    return figure
