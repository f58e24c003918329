"""A circuit: heads and MLPs, and how much each passes on to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .._util import table
from .._util.errors import UserError
from ..model import Model
from ..model.run.wiring import Wiring, wiring
from .figures.graph import circuit_html, plot_circuit
from .localization import Localization


@dataclass(frozen=True)
class Edge:
    """From what one node writes to what another reads; prints `a3.h1->m5`."""

    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.source}->{self.target}"


@dataclass(frozen=True, eq=False)
class Circuit:
    """Scores of all edges between heads, MLPs, the input and the logits.

    `frame` has one row an edge: `source, target`, then the columns of a `Localization` that are scores.
    Nodes are named as in `Wiring`.
    """

    frame: pd.DataFrame = field(repr=False)
    wiring: Wiring = field(repr=False)
    about: dict[str, Any]

    def top(self, k: int, *, by: str = "score") -> list[Edge]:
        """The `k` edges with the highest score, best first.

        Raises:
            UserError: fewer than `k` edges, or no such column.
        """
        self._check(k, by)
        best = self.frame.sort_values(by, ascending=False, kind="stable").head(k)
        return [Edge(a, b) for a, b in zip(best["source"], best["target"], strict=True)]

    def strongest(self, k: int, *, by: str = "score") -> pd.DataFrame:
        """The rows of the `k` edges whose score is furthest from zero, on either side, the strongest first.

        Raises:
            UserError: fewer than `k` edges, or no such column.
        """
        self._check(k, by)
        return self.frame.iloc[np.argsort(-self.frame[by].abs().to_numpy(), kind="stable")[:k]]

    def grid(self, column: str = "score") -> np.ndarray:
        """A column as `[source, target]`, NaN where there is no edge."""
        out = np.full(self.wiring.real.shape, np.nan)
        out[self.wiring.real] = self.frame[column]
        return out

    def nodes(self, column: str = "score") -> pd.Series:
        """Each source's score, the sum over the edges that leave it."""
        return pd.Series(np.nansum(self.grid(column), axis=1), self.wiring.sources, name=column)

    def to_frame(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.frame.copy()

    def plot(self, k: int = 40, *, by: str = "score") -> Figure:
        """The `k` strongest edges from the embedding, at the bottom, to the logits, at the top.

        Heads stand by their number, MLPs on the right; only layers that have an edge get a row. Edges are as wide
        as their score is far from zero, on a colour scale centred there: red carry the forget facts more than
        the retain facts, blue ones less.

        Raises:
            UserError: fewer than `k` edges, or no such column.
        """
        return plot_circuit(self.strongest(k, by=by), self.wiring, by)

    def html(self, k: int = 40, *, by: str = "score") -> str:
        """The same as an SVG fragment with each edge's and node's scores under the pointer, without scripts."""
        return circuit_html(self.strongest(k, by=by), self.wiring, by, self.nodes(by))

    def save(self, path: str | Path) -> Path:
        """Write one Parquet file."""
        wires = {"sources": self.wiring.sources, "targets": self.wiring.targets, "parallel": self.wiring.parallel}
        return table.write(path, self.frame, {"circuit": self.about, "wiring": wires})

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read what `save` wrote.

        Raises:
            UserError: no such file, or one that is no circuit.
        """
        frame, held = table.read(path, "circuit", "Circuit.save")
        sources, targets = (tuple(held["wiring"][side]) for side in ("sources", "targets"))
        real = np.zeros((len(sources), len(targets)), bool)
        rows, columns = (
            pd.Index(names).get_indexer(pd.Index(frame[side]))
            for names, side in ((sources, "source"), (targets, "target"))
        )
        real[rows, columns] = True
        return cls(frame, Wiring(sources, targets, real, held["wiring"]["parallel"]), held["circuit"])

    def _check(self, k: int, by: str) -> None:
        if by not in self.frame:
            raise UserError(f"{by!r} is no column here; choose one of score, forget, retain, raw.")
        if not 0 < k <= len(self.frame):
            raise UserError(f"top({k}) of {len(self.frame)} edges: ask for 1 to {len(self.frame)}.")


def circuit(model: Model, edges: Localization) -> Circuit:
    """A localization whose `index` counts the real edges, row by row, as a circuit."""
    wires = wiring(model)
    source, target = np.nonzero(wires.real)
    names = {"source": np.array(wires.sources)[source], "target": np.array(wires.targets)[target]}
    scores = edges.frame.drop(columns=["layer", "part", "index", "position", "role"])
    return Circuit(pd.concat([pd.DataFrame(names), scores], axis=1), wires, edges.about)
