"""Addresses of the parts of a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Literal, get_args

from .._util.errors import UserError

Part = Literal["neuron", "head", "kv", "attn", "mlp", "resid", "q", "k", "v"]
PARTS: tuple[Part, ...] = get_args(Part)
INDEXED: tuple[Part, ...] = ("neuron", "head", "kv", "q", "k", "v")
_PATTERN = re.compile(r"L(\d+)\.(?:expert\.(\d+)\.)?([a-z]+)(?:\.(\d+))?")


@total_ordering
@dataclass(frozen=True)
class Site:
    """One addressable part of a model: hashable and sortable. It prints as it is written.

    `neuron`, `head` and `kv` (a key/value group) have an index within the layer. So do `q` (a head's queries), `k` (a
    group's keys) and `v` (a group's values). `attn`, `mlp` and `resid` name whole parts and have no index. `resid` is
    the residual stream after the layer's block. A neuron of a mixture of experts has its index within its expert.

    >>> Site(17, "neuron", 301)
    L17.neuron.301
    >>> Site(3, "neuron", 17, expert=5)
    L3.expert.5.neuron.17
    >>> Site.parse("L12.resid")
    L12.resid
    """

    layer: int
    part: Part
    index: int | None = None
    expert: int | None = None

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise UserError(f"{self.part!r} is not a part of a model; choose one of {', '.join(PARTS)}.")
        if (self.index is None) == (self.part in INDEXED):
            need = "needs an index" if self.part in INDEXED else "takes no index"
            raise UserError(f"a {self.part} site {need}; write it like {_example(self.part)}.")
        if self.expert is not None and self.part != "neuron":
            raise UserError(f"experts have neurons, and no {self.part}; write a site like L3.expert.5.neuron.17.")

    @classmethod
    def parse(cls, text: str) -> Site:
        """The site that prints as `text`. Raises `UserError` for any other text."""
        found = _PATTERN.fullmatch(text)
        if not found:
            raise UserError(f"{text!r} is not a site; write it like L17.neuron.301, L9.head.4 or L12.resid.")
        layer, expert, part, index = found.groups()
        index, expert = (None if number is None else int(number) for number in (index, expert))
        return cls(int(layer), part, index, expert)  # type: ignore[arg-type]

    def __str__(self) -> str:
        expert = "" if self.expert is None else f".expert.{self.expert}"
        return f"L{self.layer}{expert}.{self.part}" + ("" if self.index is None else f".{self.index}")

    def __lt__(self, other: Site) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, str, int, int]:
        return self.layer, self.part, -1 if self.expert is None else self.expert, self.index or 0

    __repr__ = __str__


def _example(part: Part) -> str:
    return f"L3.{part}.5" if part in INDEXED else f"L3.{part}"
