"""One prompt's run, with its activations."""

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

    By layer, `[1, position, d_model]`: the input (`entering`) and output (`leaving`) of its block, the outputs of its
    attention (`attn`) and its `mlp`; and its keys and values, `past`. `activations`: by part and layer, for each tap of
    the part, `[position, unit, width]`.
    """

    runner: BlockRunner
    entering: list[Tensor] = field(default_factory=list)
    leaving: list[Tensor] = field(default_factory=list)
    attn: list[Tensor] = field(default_factory=list)
    mlp: list[Tensor] = field(default_factory=list)
    past: list[Past] = field(default_factory=list)
    activations: dict[Place, list[Tensor]] = field(default_factory=dict)


def trace(model: Model, ids: Tensor, places: Iterable[Place]) -> Trace:
    """Run a prompt's tokens `[position]` once and record the activations at the places' taps."""
    run = Trace(begin(model, ids))
    wanted = set(places)
    rows = run.runner.embedded
    for layer in range(model.n_layers):
        with ExitStack() as stack:
            stack.enter_context(replace_output(attention(model, layer), run.attn.append))
            stack.enter_context(replace_output(mlp(model, layer), partial(_append, run.mlp, rows.shape)))
            for place in sorted(p for p in wanted if p[1] == layer):
                run.activations[place] = []
                for tap in taps(model, *place):
                    keep = partial(_keep, run.activations[place], tap)
                    replace = replace_output if tap.out else replace_input
                    stack.enter_context(replace(tap.module, keep))
            run.entering.append(rows)
            run.past.append(Past())
            rows = run.runner.block(layer, rows, 0, run.past[-1])
            run.leaving.append(rows)
    return run


def _append(into: list[Tensor], shape: tuple[int, ...], value: Tensor) -> None:
    into.append(value.clone().view(shape))  # OPT's MLP sees positions without rows, Falcon's block adds to its output


def _keep(into: list[Tensor], tap: Tap, value: Tensor) -> None:
    into.append(value.flatten(0, -2)[:, tap.index.to(value.device)])
