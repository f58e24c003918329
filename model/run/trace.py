"""One prompt's run, with what passed the taps on the way."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from ..layout import Tap, attention, mlp, taps
from .block_runner import BlockRunner, Past, begin
from .modules import replace_input, replace_output

if TYPE_CHECKING:
    from ..load import Model
    from ..site import Part

Place = tuple["Part", int]


@dataclass(frozen=True)
class Trace:
    """A prompt's run.

    By layer, `[1, position, d_model]`: `entering` and `leaving` its block, given by its attention (`attn`)
    and its `mlp`; and its keys and values, `past`. `activations`: by part and layer, for each tap of the part,
    `[position, unit, width]`.
    """

    runner: BlockRunner
    entering: list[Tensor] = field(default_factory=list)
    leaving: list[Tensor] = field(default_factory=list)
    attn: list[Tensor] = field(default_factory=list)
    mlp: list[Tensor] = field(default_factory=list)
    past: list[Past] = field(default_factory=list)
    activations: dict[Place, list[Tensor]] = field(default_factory=dict)


def trace(model: Model, ids: Tensor, places: Iterable[Place]) -> Trace:
    """Run a prompt's tokens `[position]` once and keep what passes the places' taps."""
    kept = Trace(begin(model, ids))
    wanted = set(places)
    rows = kept.runner.embedded
    for layer in range(model.n_layers):
        with ExitStack() as stack:
            stack.enter_context(replace_output(attention(model, layer), kept.attn.append))
            stack.enter_context(replace_output(mlp(model, layer), kept.mlp.append))
            for place in sorted(p for p in wanted if p[1] == layer):
                kept.activations[place] = []
                for tap in taps(model, *place):
                    keep = partial(_keep, kept.activations[place], tap)
                    replace = replace_output if tap.out else replace_input
                    stack.enter_context(replace(tap.module, keep))
            kept.entering.append(rows)
            kept.past.append(Past())
            rows = kept.runner.block(layer, rows, 0, kept.past[-1])
            kept.leaving.append(rows)
    return kept


def _keep(into: list[Tensor], tap: Tap, value: Tensor) -> None:
    into.append(value[0][:, tap.index.to(value.device)])
