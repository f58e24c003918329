"""A circuit: scores of the edges between heads and MLPs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import JsonValue

from .._util import table
from .._util.errors import UserError
from ..model import Model
from ..model.run.wiring import Wiring, wiring
from .figures.graph import circuit_html, plot_circuit
from .localization import Localization
from .record import LocalizationRecord


@dataclass(frozen=True)
class Edge:
    """An edge from what one node writes to what another reads. It prints as `a3.h1->m5`."""

    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.source}->{self.target}"


@dataclass(frozen=True, eq=False)
class Circuit:
    """Scores of all edges between heads, MLPs, the input and the logits.

    Attributes:
        frame: one row per edge: `source`, `target` (named as in `Wiring`), and the score columns of a `Localization`.
        wiring: the model's nodes and edges.
        record: how the scores were made.
    """

    frame: pd.DataFrame = field(repr=False)
    wiring: Wiring = field(repr=False)
    record: LocalizationRecord

    def top(self, k: int, *, by: str = "score") -> list[Edge]:
        """The `k` edges with the highest score, best first.

        Raises:
            UserError: fewer than `k` edges, or no such column.
        """
        self._check(k, by)
        best = self.frame.sort_values(by, ascending=False, kind="stable").head(k)
        return [Edge(a, b) for a, b in zip(best["source"], best["target"], strict=True)]

    def strongest(self, k: int, *, by: str = "score") -> pd.DataFrame:
        """The rows of the `k` edges whose score is farthest from zero, on either side, strongest first.

        Raises:
            UserError: fewer than `k` edges, or no such column.
        """
        self._check(k, by)
        return self.frame.iloc[np.argsort(-self.frame[by].abs().to_numpy(), kind="stable")[:k]]

    def grid(self, column: str = "score") -> np.ndarray:
        """A column as `[source, target]`, with NaN where there is no edge."""
        out = np.full(self.wiring.real.shape, np.nan)
        out[self.wiring.real] = self.frame[column]
        return out

    def nodes(self, column: str = "score") -> pd.Series:
        """Each source's score: the sum over the edges that leave it."""
        return pd.Series(np.nansum(self.grid(column), axis=1), self.wiring.sources, name=column)

    def to_frame(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.frame.copy()

    def plot(self, k: int = 40, *, by: str = "score") -> Figure:
        """Draw the `k` strongest edges, from the embedding at the bottom to the logits at the top.

        Heads stand at their number and MLPs on the right; only layers with an edge get a row. Width and colour show
        the score. Red edges serve the forget facts more than the retain facts, blue edges less.

        Raises:
            UserError: fewer than `k` edges, or no such column.
        """
        return plot_circuit(self.strongest(k, by=by), self.wiring, by)

    def html(self, k: int = 40, *, by: str = "score") -> str:
        """The same drawing as an SVG fragment without scripts; tooltips give the scores of each edge and node."""
        return circuit_html(self.strongest(k, by=by), self.wiring, by, self.nodes(by))

    def save(self, path: str | Path) -> Path:
        """Write the frame, the wiring and the record to one Parquet file."""
        metadata = {"kind": "circuit", "record": self.record.to_json(), "wiring": _wiring_to_json(self.wiring)}
        return table.write(path, self.frame, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read what `save` wrote.

        Raises:
            UserError: no such file, or not a circuit.
        """
        frame, metadata = table.read(path, "circuit", "Circuit.save")
        return cls(
            frame, _wiring_from_json(metadata["wiring"], frame), LocalizationRecord.from_json(metadata.get("record"))
        )

    def _check(self, k: int, by: str) -> None:
        if by not in self.frame:
            raise UserError(f"there is no column {by!r}; choose one of score, forget, retain, raw.")
        if not 0 < k <= len(self.frame):
            raise UserError(f"top({k}) of {len(self.frame)} edges: ask for 1 to {len(self.frame)}.")


def circuit(model: Model, edges: Localization) -> Circuit:
    """Turn a localization of edges into a circuit. Its `index` counts the model's edges row by row."""
    wires = wiring(model)
    source, target = np.nonzero(wires.real)
    names = {"source": np.array(wires.sources)[source], "target": np.array(wires.targets)[target]}
    scores = edges.frame.drop(columns=["layer", "part", "index", "position", "role"])
    return Circuit(pd.concat([pd.DataFrame(names), scores], axis=1), wires, edges.record)


def _wiring_to_json(wires: Wiring) -> dict[str, JsonValue]:
    """The nodes; the frame lists the edges."""
    return {"sources": list(wires.sources), "targets": list(wires.targets), "parallel": wires.parallel}


def _wiring_from_json(value: JsonValue, frame: pd.DataFrame) -> Wiring:
    nodes = cast("dict[str, list[str]]", value)
    sources, targets = tuple(nodes["sources"]), tuple(nodes["targets"])
    real = np.zeros((len(sources), len(targets)), bool)
    rows, columns = (
        pd.Index(names).get_indexer(pd.Index(frame[side])) for names, side in ((sources, "source"), (targets, "target"))
    )
    real[rows, columns] = True
    return Wiring(sources, targets, real, bool(nodes["parallel"]))
