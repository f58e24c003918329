"""What a localization is worth to a reader: one sentence on what is lost with its best sites, and what else is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..model import Part
from .knockout import UNTOUCHED

GROUPS = {"same": "of what is nearest", "other": "of other knowledge"}
RANDOM = "random"
OTHERS = ("taylor", "sweep")  # locators to try where nothing is selective
Z = 1.959964


@dataclass(frozen=True)
class Overlap:
    """How much the `k` best sites overlap between two ways to ask, as a share of `k`.

    `same`: for the same item. `others`: for two different items.
    """

    k: int
    same: float
    others: float


@dataclass(frozen=True)
class Selectivity:
    """The share of each group's items that a model loses without the best sites, and without as many random ones.

    Attributes:
        method: the locator that ranked the sites.
        part: the part of the sites.
        sites: how many were zeroed.
        lost: by group (`forget`, `same`, `other`; without groups that are empty).
        random: the share of the items to forget that is lost without random sites of the same layers.
        counts: how many items each group has.
        paraphrases: the overlap of the best sites between two ways to ask, if the case has them.
    """

    method: str
    part: Part
    sites: int
    lost: Mapping[str, float]
    random: float
    counts: Mapping[str, int]
    paraphrases: Overlap | None = None

    @classmethod
    def of(
        cls,
        silent: pd.DataFrame,
        method: str,
        part: Part,
        counts: Mapping[str, int],
        paraphrases: Overlap | None = None,
    ) -> Selectivity:
        """From a table of `knockout`, whose second row is that of the best sites."""
        rows: Any = silent.to_dict("index")
        before, best, random = rows[UNTOUCHED], rows[silent.index[1]], rows[RANDOM]
        lost = {g: float(before[g] - best[g]) for g, n in counts.items() if n}
        alone = float(before["forget"] - random["forget"])
        return cls(method, part, int(best["sites"]), lost, alone, dict(counts), paraphrases)

    @property
    def is_selective(self) -> bool:
        """Whether more is lost of what is to be forgotten than of any other group, and than without random sites.

        Each difference must be above zero by its 95% interval over items.
        """
        n = self.counts["forget"]
        others = [(share, self.counts[g]) for g, share in self.lost.items() if g != "forget"]
        return all(_difference(self.lost["forget"], n, share, m)[0] > 0 for share, m in [*others, (self.random, n)])

    def __str__(self) -> str:
        """One sentence, and a second one on paraphrases."""
        beside = " and ".join([f"{self.lost[g]:.0%} {name}" for g, name in GROUPS.items() if g in self.lost])
        shown = (
            f"without the best {self.sites} {self.part} sites, {self.lost['forget']:.0%} of what is to be forgotten is "
            f"lost (without as many random ones {self.random:.0%}){', ' if beside else ''}{beside}"
        )
        if self.is_selective:
            text = f"These sites are selective: {shown}."
        else:
            others = " or ".join(f"--method {name}" for name in OTHERS if name != self.method)
            step = f"Try more items, another part (--part), or {others}"
            text = f"These sites are not shown to be selective: {shown}. {step}."
        if not self.paraphrases:
            return text
        of = self.paraphrases
        return (
            f"{text} Two ways to ask for an item share {of.same:.0%} of its best {of.k} {self.part} sites, two "
            f"different items {of.others:.0%}."
        )


def _difference(p: float, n: int, q: float, m: int) -> tuple[float, float]:
    """The 95% interval of `p - q`, two independent shares of n and of m: Newcombe 1998, method 10."""
    (a, b), (c, d) = _wilson(p, n), _wilson(q, m)
    return p - q - math.hypot(p - a, d - q), p - q + math.hypot(b - p, q - c)


def _wilson(p: float, n: int) -> tuple[float, float]:
    p = min(max(p, 0.0), 1.0)
    middle, half = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n)
