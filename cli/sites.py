"""Sites as the command line writes them."""

from __future__ import annotations

import numpy as np

from .._util.errors import UserError
from ..model import PARTS, Model, Part, Site

FORM = "write sites like L10.mlp,L11.mlp, or draw some like neuron:300"


def read_sites(model: Model, text: str, seed: int) -> list[Site]:
    """The sites that a list names, or as many of a part as `PART:N` says, drawn by a seed; none for an empty text.

    Raises:
        UserError: a text of another form, or more sites than the model has.
    """
    if not text:
        return []
    part, colon, number = text.partition(":")
    if not colon:
        return [Site.parse(each.strip()) for each in text.split(",")]
    known: dict[str, Part] = {each: each for each in PARTS}
    if part not in known or not number.isdecimal():
        raise UserError(f"{text!r} are no sites; {FORM}.")
    every = model.sites(known[part])
    if not 0 < int(number) <= len(every):
        raise UserError(f"{model.name} has {len(every)} {part} sites, not {number}; name 1 to {len(every)}.")
    chosen = np.random.default_rng(seed).choice(len(every), size=int(number), replace=False)
    return [every[i] for i in sorted(chosen)]
