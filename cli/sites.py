"""Sites as the command line writes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._util.errors import UserError
from ..model import PARTS, Model, Part, Site

_PARTS: dict[str, Part] = {part: part for part in PARTS}
FORM = "write sites like L10.mlp,L11.mlp, or draw some like neuron:300"


@dataclass(frozen=True)
class SiteChoice:
    """Named sites, or the number of sites of a part to draw; neither for no sites."""

    named: tuple[Site, ...] = ()
    part: Part | None = None
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> SiteChoice:
        """Read what the option says, which needs no model. Raises `UserError` for any other form."""
        if not text:
            return cls()
        name, colon, number = text.partition(":")
        if not colon:
            return cls(tuple(Site.parse(each.strip()) for each in text.split(",")))
        part = _PARTS.get(name)
        if part is None or not number.isdecimal() or not int(number):
            raise UserError(f"{text!r} names no sites; {FORM}.")
        return cls((), part, int(number))

    def on(self, model: Model, seed: int) -> list[Site]:
        """The sites in a model, drawn by a seed. Raises `UserError` if it has fewer."""
        if self.part is None:
            return list(self.named)
        every = model.sites(self.part)
        if self.number > len(every):
            raise UserError(
                f"{model.name} has {len(every)} {self.part} sites, not {self.number}; name 1 to {len(every)}."
            )
        chosen = np.random.default_rng(seed).choice(len(every), size=self.number, replace=False)
        return [every[i] for i in sorted(chosen)]
