"""Scores for every site, with their confidence: where a piece of knowledge sits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .._util import table
from .._util.errors import UserError
from ..model import INDEXED, Part, Site
from .figures.interactive import heatmap_html, scatter_html
from .figures.plot import Evidence, Sides, best_sites, plot_scores, plot_sides
from .record import LocalizationRecord

COLUMNS = (
    "layer", "part", "index", "position", "score", "low", "high", "frequency", "q", "role", "forget", "retain", "raw",
    "general",
)  # fmt: skip

NUMBERS = ("layer", "score", "low", "high", "frequency", "q", "forget", "retain", "raw")


@dataclass(frozen=True, eq=False)
class Localization:
    """Scores of all sites of one or more parts.

    Attributes:
        frame: one row per site, with the columns below.
        record: how the scores were made.

    Columns of `frame`:
        layer, part, index: the site; neurons are counted through the experts of their layer.
        position: null where scores are summed over positions.
        score: the contrast `forget - retain`, in `record.unit`.
        low, high: 95% bootstrap interval of the score, over facts.
        frequency: share of the resamples in which the site is among the best 0.5% of its part.
        q: Benjamini-Hochberg value of a one-sided Welch test that `forget` exceeds `retain`.
        role: `lookup`, `relay` or `readout`; null until `label_roles` sets it.
        forget, retain: the mean effect on the facts of each side, in `record.unit`: mostly the share of a fact's whole
            effect.
        raw: the mean effect on the forget facts in log-odds, before scaling.
        general: whether any text needs the site; false until `mark_general` sets it.
    """

    frame: pd.DataFrame = field(repr=False)
    record: LocalizationRecord

    @property
    def parts(self) -> tuple[Part, ...]:
        """The scored parts, in the frame's order."""
        return tuple(dict.fromkeys(self.frame["part"]))

    def top(self, k: int, *, part: Part = "neuron", by: str = "score") -> list[Site]:
        """The `k` sites of a part with the highest score, best first; sites marked as `general` come last.

        Args:
            by: the column to sort by. `forget` ignores the retain facts.

        Raises:
            UserError: a part without scores, fewer than `k` sites, or no such column.
        """
        rows = self._rows(part)
        self._check_column(by)
        if not 0 < k <= len(rows):
            raise UserError(f"top({k}) of {len(rows)} {part} sites: ask for 1 to {len(rows)}.")
        order = {"general": True, by: False, "layer": True, "index": True}
        best = rows.sort_values(list(order), ascending=list(order.values()), kind="stable").head(k)
        return [self.site(int(a), part, int(b)) for a, b in zip(best["layer"], best["index"], strict=True)]

    def site(self, layer: int, part: Part, unit: int) -> Site:
        """The site of a row, by its columns `layer`, `part` and `index`."""
        if part == "neuron" and self.record.n_experts > 1:
            expert, index = divmod(unit, self._width(layer))
            return Site(layer, part, index, expert)
        return Site(layer, part, unit if part in INDEXED else None)

    def unit(self, site: Site) -> int:
        """The column `index` of a site."""
        return (site.index or 0) + (site.expert * self._width(site.layer) if site.expert else 0)

    def _width(self, layer: int) -> int:
        """The number of neurons in an expert."""
        rows = self._rows("neuron")
        return int((rows["layer"] == layer).sum()) // self.record.n_experts

    def grid(self, part: Part, column: str = "score") -> np.ndarray:
        """A column as `[layer, unit]`.

        Raises:
            UserError: a part without scores, no such column, or layers of different sizes.
        """
        self._check_column(column)
        rows = self._rows(part).sort_values(["layer", "index"])
        layers = rows["layer"].nunique()
        if len(rows) % layers:
            raise UserError(f"{len(rows)} {part} sites do not fill {layers} layers; locate again.")
        return rows[column].to_numpy(float).reshape(layers, -1)

    def significant_sites(self, part: Part = "neuron", *, level: float = 0.05) -> list[Site]:
        """The sites that serve the forget facts more than the retain facts, beyond chance, best first.

        The expected share of false discoveries in the list is at most `level` (Benjamini-Hochberg over all sites of
        the part). An empty list is a valid answer: by this score, the knowledge is not localizable.

        Raises:
            UserError: a part without scores, or a level outside 0 and 1.
        """
        if not 0 < level < 1:
            raise UserError(
                f"level={level} is not a share of false discoveries; give one between 0 and 1, such as 0.05."
            )
        rows = self._rows(part)
        significant = {(a, b) for a, b, q in zip(rows["layer"], rows["index"], rows["q"], strict=True) if q <= level}
        return [s for s in self.top(len(rows), part=part) if (s.layer, self.unit(s)) in significant]

    def __str__(self) -> str:
        """For each part, how many sites are significant, and the best five with their intervals."""
        return "\n".join(self._summary(part) for part in self.parts)

    def _summary(self, part: Part, k: int = 5) -> str:
        rows = self._rows(part).set_index(["layer", "index"])
        best = []
        for site in self.top(min(k, len(rows)), part=part):
            row: Any = rows.loc[(site.layer, self.unit(site))]
            best.append(f"{site} {row['score']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})")
        n = len(self.significant_sites(part))
        count = f"{n:,} of {len(rows):,} stand out (q of 0.05 or less)" if n else "none stands out: not localizable"
        return f"{part}: {count}; best: {', '.join(best)}"

    def to_frame(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.frame.copy()

    def plot(
        self, part: Part | None = None, *, scatter: bool = False, chosen: Collection[Site] | None = None
    ) -> Figure:
        """Draw heads by layer as a heatmap, and the best neurons of each layer.

        Sites whose interval spans zero are faint, and chosen sites are outlined.

        Args:
            part: draw this part only.
            scatter: draw each site by its effect on the retain facts (across) and the forget facts (up) instead.
            chosen: the sites to outline, such as those of an edit; by default the best 200 neurons (the best tenth of
                fewer than 2,000), and the best five sites of other parts.

        Raises:
            UserError: a part without scores.
        """
        parts: tuple[Part, ...] = (part,) if part else self.parts
        if scatter:
            return plot_sides({p: self._sides(p) for p in parts})
        return plot_scores({p: self._evidence(p, chosen) for p in parts})

    def html(self, part: Part, *, scatter: bool = False, chosen: Collection[Site] | None = None) -> str:
        """The same drawing of one part as an SVG fragment; tooltips give each site's scores.

        Raises:
            UserError: a part without scores.
        """
        rows = self._rows(part).sort_values(["layer", "index"])
        names = [str(self.site(int(a), part, int(b))) for a, b in zip(rows["layer"], rows["index"], strict=True)]
        rows = rows.assign(site=names)
        if scatter:
            return scatter_html(rows, part, self.record.unit)
        of = self._evidence(part, chosen)
        rows = rows.assign(chosen=of.chosen.ravel(), opacity=of.opacity.ravel())
        return heatmap_html(rows, part, self.record.unit)

    def _sides(self, part: Part) -> Sides:
        forget, retain, score = (self.grid(part, column) for column in ("forget", "retain", "score"))
        return Sides(forget, retain, score, self.record.unit)

    def _evidence(self, part: Part, chosen: Collection[Site] | None) -> Evidence:
        score, low, high = (self.grid(part, column) for column in ("score", "low", "high"))
        ranked = np.where(self.grid(part, "general") > 0, -np.inf, score)
        mask = best_sites(ranked, part) if chosen is None else np.zeros(score.shape, bool)
        for site in chosen or ():
            if site.part == part:
                mask[site.layer, self.unit(site)] = True
        return Evidence(score, low, high, mask, self.record.unit)

    def save(self, path: str | Path) -> Path:
        """Write the frame and the record to one Parquet file."""
        return table.write(path, self.frame, {"kind": "localization", "record": self.record.to_json()})

    @classmethod
    def load(cls, path: str | Path) -> Localization:
        """Read what `save` wrote.

        Raises:
            UserError: no such file, or not a localization.
        """
        frame, metadata = table.read(path, "localization", "`loka locate`")
        if "general" not in frame:
            frame["general"] = False  # a file from before sites were marked
        if missing := [c for c in COLUMNS if c not in frame]:
            raise UserError(f"{str(path)!r} lacks the column {missing[0]!r}; `loka locate` writes it anew.")
        if text := [c for c in NUMBERS if not pd.api.types.is_numeric_dtype(frame[c])]:
            raise UserError(
                f"{str(path)!r} has a column {text[0]!r} that is not numbers; `loka locate` writes it anew."
            )
        return cls(frame, LocalizationRecord.from_json(metadata.get("record")))

    def _check_column(self, name: str) -> None:
        if name not in self.frame:
            raise UserError(f"there is no column {name!r}; choose one of score, forget, retain, raw, frequency.")

    def _rows(self, part: str) -> pd.DataFrame:
        if part not in self.parts:
            raise UserError(f"{part!r} was not scored here; choose from {', '.join(self.parts)}.")
        return self.frame[self.frame["part"] == part]
