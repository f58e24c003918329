"""Helpers that all methods share: the weights of sites, and the record of how an edit was made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import TYPE_CHECKING

import torch
from pydantic import JsonValue

from .._util.errors import UserError
from ..knowledge import Case, CaseSpec
from ..model import EditRecord, Site, Slice, slices

if TYPE_CHECKING:
    from ..model import Model

Progress = Callable[[int, int], None]
Stop = Callable[[int], bool]


def target_slices(model: Model, sites: Iterable[Site] | None) -> list[Slice]:
    """The slices of the given sites; for `None`, all rows of every matrix and bias of the blocks.

    Raises:
        UserError: no sites, or sites that the model does not have.
    """
    if sites is None:
        inside = model.block(0).removesuffix("0")
        blocks = {n: p for n, p in model.parameters.items() if n.startswith(inside)}
        maps = {n.rsplit(".", 1)[0] for n, p in blocks.items() if p.ndim == 2}
        return [Slice(n, 0, torch.arange(p.shape[0])) for n, p in blocks.items() if n.rsplit(".", 1)[0] in maps]
    where = slices(model, set(sites))
    if not where:
        raise UserError("there are no sites to train; take them from a localization's `top`.")
    return where


def writing_sites(method: str, model: Model, sites: Iterable[Site]) -> list[Site]:
    """The sites, sorted and without duplicates; each must write to the residual stream directly.

    Raises:
        UserError: no sites, sites that the model does not have, or sites that do not write to the residual stream
            directly.
    """
    ordered = sorted(set(sites))
    for site in ordered:
        model.check_site(site)
    if not ordered or any(s.part in ("kv", "resid") for s in ordered):
        raise UserError(f"{method} needs sites that write to the residual stream directly: neuron, head, attn or mlp.")
    return ordered


def edit_record(
    method: str, model: Model, case: Case | CaseSpec, sites: Iterable[Site] | None, arguments: Mapping[str, JsonValue]
) -> EditRecord:
    """The record of how an edit was made."""
    names = None if sites is None else tuple(str(s) for s in sorted(set(sites)))
    return EditRecord(method, model.name, case.name, names, arguments)


def progress_argument(method: Callable[..., object], progress: Progress | None) -> dict[str, Progress | None]:
    """`progress` as a keyword argument, if the method takes it."""
    return {"progress": progress} if "progress" in signature(method).parameters else {}
