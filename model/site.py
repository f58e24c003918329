"""Addresses of the parts of a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from .._util.errors import UserError

Part = Literal["neuron", "head", "kv", "attn", "mlp", "resid", "q", "k", "v"]
PARTS: tuple[Part, ...] = get_args(Part)
INDEXED: tuple[Part, ...] = ("neuron", "head", "kv", "q", "k", "v")
_PATTERN = re.compile(r"L(\d+)\.([a-z]+)(?:\.(\d+))?")


@dataclass(frozen=True, order=True)
class Site:
    """One addressable part of a model: hashable and sortable. It prints as it is written.

    `neuron`, `head` and `kv` (a key/value group) have an index within the layer. So do `q` (a head's queries), `k` (a
    group's keys) and `v` (a group's values). `attn`, `mlp` and `resid` name whole parts and have no index. `resid` is
    the residual stream after the layer's block.

    >>> Site(17, "neuron", 301)
    L17.neuron.301
    >>> Site.parse("L12.resid")
    L12.resid
    """

    layer: int
    part: Part
    index: int | None = None

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise UserError(f"{self.part!r} is not a part of a model; choose one of {', '.join(PARTS)}.")
        if (self.index is None) == (self.part in INDEXED):
            need = "needs an index" if self.part in INDEXED else "takes no index"
            raise UserError(f"a {self.part} site {need}; write it like {_example(self.part)}.")

    @classmethod
    def parse(cls, text: str) -> Site:
        """The site that prints as `text`. Raises `UserError` for any other text."""
        found = _PATTERN.fullmatch(text)
        if not found:
            raise UserError(f"{text!r} is not a site; write it like L17.neuron.301, L9.head.4 or L12.resid.")
        layer, part, index = found.groups()
        return cls(int(layer), part, None if index is None else int(index))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"L{self.layer}.{self.part}" + ("" if self.index is None else f".{self.index}")

    __repr__ = __str__


def _example(part: Part) -> str:
    return f"L3.{part}.5" if part in INDEXED else f"L3.{part}"
