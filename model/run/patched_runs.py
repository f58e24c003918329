"""The rows of a sweep: runs that each differ from a prompt's own run at one site.

A row joins the batch at its site's layer, after the intervention. Earlier layers never run for it, nor do positions
before the first that changes; their keys and values are the prompt's. A change of a head or neuron moves the output of
its attention or MLP by the difference times its columns of the output map. Only the part of the block after the
intervention is recomputed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby

import torch
from einops import rearrange
from torch import Tensor

from ..layout import output_columns, taps
from ..load import Model
from ..site import Part, Site
from .block_runner import Past
from .interventions import Differences
from .modules import replace_output
from .trace import Place, Trace


class PatchedRuns:
    """The last block's outputs at a prompt's last `keep` positions when sites are changed.

    `first`: the first position at which any site changes, or the prompt's length if none does.
    """

    def __init__(self, model: Model, run: Trace, moves: Differences, keep: int) -> None:
        self.model, self.run, self.moves, self.keep = model, run, moves, keep
        moved = [m.flatten(1).any(1).nonzero() for many in moves.values() for m in many]
        self.first = min((int(m[0]) for m in moved if len(m)), default=run.runner.length)

    def start(self, at: int | None) -> int:
        """The first position that rows compute. They change all positions, or the one at `at`."""
        return min(self.first if at is None else at, self.run.runner.length - self.keep)

    def ends(self, sites: Sequence[Site], at: int | None = None) -> Tensor:
        """Outputs `[site, keep, d_model]` of sites that are sorted by layer and part."""
        start, last = self.start(at), self.model.n_layers - 1
        joining = {layer: list(group) for layer, group in groupby(sites, lambda site: site.layer)}
        rows = None
        for layer in range(sites[0].layer, last + 1):
            out = [] if rows is None else [self._next_block(layer, rows, start)]
            for part, group in groupby(joining.get(layer, []), _part):
                new = self._join((part, layer), [self.model.unit(site) for site in group], start, at)
                out.append(new if layer < last else new[:, -self.keep :])
            rows = torch.cat(out)
        assert rows is not None, "there is at least one site"
        return rows

    def _next_block(self, layer: int, rows: Tensor, start: int) -> Tensor:
        runner, past = self.run.runner, self.run.past[layer].before(start)
        if layer == self.model.n_layers - 1:
            return runner.ending(layer, rows, start, past, self.keep)
        return runner.block(layer, rows, start, past)

    def _join(self, place: Place, units: list[int], start: int, at: int | None) -> Tensor:
        """The block's output with each of its units changed, `[unit, position, d_model]`."""
        (part, layer), run, runner = place, self.run, self.run.runner
        alone = [_only_at(move[start:, units], at, start) for move in self.moves[place]]
        moves = [rearrange(move, "position unit width -> unit position width") for move in alone]
        if part == "resid":
            return run.leaving[layer][:, start:] + moves[0].flatten(2)
        rows = run.entering[layer][:, start:].expand(len(units), -1, -1)
        attn = run.attn[layer][:, start:].expand(len(units), -1, -1)
        if part in ("attn", "head"):
            return runner.block(layer, rows, start, Past(), attn=attn + self._push_to_output(place, units, moves[0]))
        if part in ("mlp", "neuron"):
            mlp = run.mlp[layer][:, start:] + self._push_to_output(place, units, moves[0])
            return runner.block(layer, rows, start, Past(), attn=attn, mlp=mlp)
        with ExitStack() as stack:
            for tap, move in zip(taps(self.model, part, layer), moves, strict=True):
                index = tap.index[units].to(move.device)[:, None].expand(-1, move.shape[1], -1)
                stack.enter_context(replace_output(tap.module, lambda x, i=index, m=move: x.scatter_add(2, i, m)))
            return runner.block(layer, rows, start, run.past[layer].before(start))

    def _push_to_output(self, place: Place, units: list[int], move: Tensor) -> Tensor:
        """The change of the attention's or MLP's output when units move by `[unit, position, width]`."""
        if place[0] in ("attn", "mlp"):
            return move.flatten(2)
        return move @ output_columns(self.model, *place, units)


def _part(site: Site) -> Part:
    return site.part


def _only_at(move: Tensor, at: int | None, start: int) -> Tensor:
    """A difference `[position, ...]` at one position alone."""
    if at is None:
        return move
    out = torch.zeros_like(move)
    out[at - start] = move[at - start]
    return out
