"""Where a piece of knowledge sits: scores for every site, with their confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from .._util import table
from .._util.errors import UserError
from ..model import INDEXED, Part, Site
from .figures.interactive import heatmap_html, scatter_html
from .figures.plot import Sides, plot_scores, plot_sides

RESAMPLES = 200
TOP_SHARE = 0.005
COLUMNS = (
    "layer", "part", "index", "position", "score", "low", "high", "frequency", "q", "role", "forget", "retain", "raw"
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Localization:
    """Scores of all sites of one or more parts.

    `frame` has one row a site: `layer, part, index, position, score, low, high, frequency, q, role,
    forget, retain, raw`. `score` is the contrast `forget - retain`, both in shares of a fact's whole
    effect; `low` and `high` are its 95% bootstrap interval over subjects; `frequency` is how often the
    site is among the best 0.5% of its part in the resamples; `q` is the Benjamini-Hochberg value of a
    one-sided Welch test that forget exceeds retain; `raw` is the forget side in log-odds, before scaling.
    `position` is null where scores are summed over positions; `role` is null where nobody labelled it.
    """

    frame: pd.DataFrame = field(repr=False)
    about: dict[str, Any]

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(dict.fromkeys(self.frame["part"]))

    def top(self, k: int, *, part: Part = "neuron", by: str = "score") -> list[Site]:
        """The `k` sites of a part with the highest score, best first. `by="forget"` leaves the contrast out.

        Raises:
            UserError: a part that was not scored, fewer than `k` sites, or no such column.
        """
        rows = self._of(part)
        self._check_column(by)
        if not 0 < k <= len(rows):
            raise UserError(f"top({k}) of {len(rows)} {part} sites: ask for 1 to {len(rows)}.")
        best = rows.sort_values([by, "layer", "index"], ascending=[False, True, True], kind="stable").head(k)
        return [
            Site(int(a), part, int(b) if part in INDEXED else None)
            for a, b in zip(best["layer"], best["index"], strict=True)
        ]

    def grid(self, part: Part, column: str = "score") -> np.ndarray:
        """A column as `[layer, unit]`."""
        self._check_column(column)
        rows = self._of(part).sort_values(["layer", "index"])
        return rows[column].to_numpy(float).reshape(rows["layer"].nunique(), -1)

    def survivors(self, part: Part = "neuron", *, level: float = 0.05) -> list[Site]:
        """The sites that serve the forget facts more than the retain facts beyond chance, best first.

        Of those listed, no more than a share of `level` is expected to be there by chance (Benjamini-Hochberg over
        all sites of the part). An empty list is an answer: by this score, the knowledge is not localizable.

        Raises:
            UserError: a part that was not scored, or a level outside 0 and 1.
        """
        if not 0 < level < 1:
            raise UserError(f"level={level} is no share of false discoveries; give one between 0 and 1, such as 0.05.")
        rows = self._of(part)
        kept = {(a, b) for a, b, q in zip(rows["layer"], rows["index"], rows["q"], strict=True) if q <= level}
        return [s for s in self.top(len(rows), part=part) if (s.layer, s.index or 0) in kept]

    def __str__(self) -> str:
        """For each part the best sites with their intervals, and how many stand out beyond chance."""
        return "\n".join(self._told(part) for part in self.parts)

    def _told(self, part: Part, k: int = 5) -> str:
        rows = self._of(part).set_index(["layer", "index"])
        best = []
        for site in self.top(min(k, len(rows)), part=part):
            row: Any = rows.loc[(site.layer, site.index or 0)]
            best.append(f"{site} {row['score']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})")
        n = len(self.survivors(part))
        told = f"{n:,} of {len(rows):,} stand out (q of 0.05 or less)" if n else "none stands out: not localizable"
        return f"{part}: {told}; best: {', '.join(best)}"

    def to_frame(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.frame.copy()

    def plot(self, part: Part | None = None, *, scatter: bool = False) -> Figure:
        """The layer by head heatmap and the best neurons by layer, or one of the two; or what sites do for which facts.

        Args:
            scatter: each site by what it does for the retain facts, across, and for the forget facts, up.

        Raises:
            UserError: a part that was not scored.
        """
        parts: tuple[Part, ...] = (part,) if part else self.parts
        if scatter:
            return plot_sides({p: Sides(*(self.grid(p, c) for c in ("forget", "retain", "score"))) for p in parts})
        return plot_scores({p: self.grid(p) for p in parts})

    def html(self, part: Part, *, scatter: bool = False) -> str:
        """A part's heatmap, or its forget against retain scatter, as HTML with each site's scores under the pointer."""
        return (scatter_html if scatter else heatmap_html)(self._of(part), part)

    def save(self, path: str | Path) -> Path:
        """Write one Parquet file."""
        return table.write(path, self.frame, self.about)

    @classmethod
    def load(cls, path: str | Path) -> Localization:
        """Read what `save` wrote.

        Raises:
            UserError: no such file, or one that is no localization.
        """
        return cls(*table.read(path, "localization", "`loka locate`"))

    def _check_column(self, name: str) -> None:
        if name not in self.frame:
            raise UserError(f"{name!r} is no column here; choose one of score, forget, retain, raw, frequency.")

    def _of(self, part: str) -> pd.DataFrame:
        if part not in self.parts:
            raise UserError(f"{part!r} was not scored here; scored are {', '.join(self.parts)}.")
        return self.frame[self.frame["part"] == part]


def contrast(
    scores: dict[Part, np.ndarray],
    falls: np.ndarray,
    *,
    n_forget: int,
    subjects: Sequence[str],
    seed: int,
    about: dict[str, Any],
) -> Localization:
    """Signed forget minus retain scores, with intervals over subjects.

    Args:
        scores: by part `[fact, layer, unit]`, the forget facts first.
        falls: `[fact]`, each fact's whole effect, by which its scores are divided. Facts whose effect is
            under a tenth of the median are left out: their shares would be noise.
    """
    keep = falls > 0.1 * np.median(np.abs(falls))
    forget = np.flatnonzero(keep[:n_forget])
    retain = n_forget + np.flatnonzero(keep[n_forget:])
    if not len(forget) or not len(retain):
        raise UserError("no fact's answer depends on its subject here, so there is nothing to locate; check the case.")
    about = {**about, "n_forget": len(forget), "n_retain": len(retain), "seed": seed}
    frames = [
        _table(part, raw / falls[:, None, None].clip(1e-9), raw[forget].mean(0), forget, retain, seed)
        for part, raw in scores.items()
    ]
    return Localization(pd.concat(frames, ignore_index=True), about)


def _table(
    part: Part, shares: np.ndarray, raw: np.ndarray, forget: np.ndarray, retain: np.ndarray, seed: int
) -> pd.DataFrame:
    n_units = raw.shape[1]
    a, b = (shares[rows].reshape(len(rows), -1) for rows in (forget, retain))
    score = a.mean(0) - b.mean(0)
    low, high, frequency = _bootstrap(a, b, seed)
    with np.errstate(all="ignore"):
        test: Any = stats.ttest_ind(a, b, equal_var=False, alternative="greater")
    q = stats.false_discovery_control(np.nan_to_num(test.pvalue, nan=1.0))
    layer, index = np.divmod(np.arange(score.size), n_units)
    return pd.DataFrame(
        {
            "layer": layer, "part": part, "index": index, "position": pd.array([None] * score.size, dtype="Int64"),
            "score": score, "low": low, "high": high, "frequency": frequency, "q": q,
            "role": pd.array([None] * score.size, dtype="string"),
            "forget": a.mean(0), "retain": b.mean(0), "raw": raw.reshape(-1),
        }
    )[list(COLUMNS)]  # fmt: skip


def _bootstrap(a: np.ndarray, b: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """95% interval of the contrast and how often a site is among the best, over resampled facts."""
    rng = np.random.default_rng(seed)

    def weights(n: int) -> np.ndarray:
        return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float32) / n

    draws = weights(len(a)) @ a.astype(np.float32) - weights(len(b)) @ b.astype(np.float32)
    k = max(1, round(TOP_SHARE * a.shape[1]))
    best = np.partition(draws, -k, axis=1)[:, -k, None]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return low, high, (draws >= best).mean(0)
