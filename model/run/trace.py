"""One prompt's run, with what passed the taps on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..layout import Tap, attention, mlp, taps
from .block_runner import BlockRunner, Past, begin, stream

if TYPE_CHECKING:
    from ..load import Model
    from ..site import Part

Place = tuple["Part", int]


@dataclass(frozen=True)
class Trace:
    """A prompt's run.

    By layer, `[1, position, d_model]`: `entering` and `leaving` its block, given by its attention (`attn`)
    and its `mlp`; and its keys and values, `past`. `tapped`: by part and layer, for each tap of the part,
    `[position, unit, width]`.
    """

    steps: BlockRunner
    entering: list[Tensor] = field(default_factory=list)
    leaving: list[Tensor] = field(default_factory=list)
    attn: list[Tensor] = field(default_factory=list)
    mlp: list[Tensor] = field(default_factory=list)
    past: list[Past] = field(default_factory=list)
    tapped: dict[Place, list[Tensor]] = field(default_factory=dict)


def trace(model: Model, ids: Tensor, places: Iterable[Place]) -> Trace:
    """Run a prompt's tokens `[position]` once and keep what passes the places' taps."""
    kept = Trace(begin(model, ids))
    wanted = set(places)
    rows = kept.steps.embedded
    for layer in range(model.n_layers):
        with ExitStack() as stack:
            stack.enter_context(passing(attention(model, layer), kept.attn.append))
            stack.enter_context(passing(mlp(model, layer), kept.mlp.append))
            for place in sorted(p for p in wanted if p[1] == layer):
                kept.tapped[place] = []
                for tap in taps(model, *place):
                    keep = partial(_keep, kept.tapped[place], tap)
                    stack.enter_context(passing(tap.module, keep, out=tap.out))
            kept.entering.append(rows)
            kept.past.append(Past())
            rows = kept.steps.block(layer, rows, 0, kept.past[-1])
            kept.leaving.append(rows)
    return kept


@contextmanager
def passing(module: nn.Module, change: Callable[[Tensor], Tensor | None], *, out: bool = True) -> Iterator[None]:
    """What a module gives (or takes in) goes through `change`, which replaces it where it gives a tensor."""

    def behind(_module: object, _given: object, value: Tensor | tuple[Tensor, ...]) -> object:
        new = change(stream(value))
        return new if new is None or isinstance(value, Tensor) else (new, *value[1:])

    def before(_module: object, given: tuple[Tensor, ...]) -> object:
        new = change(given[0])
        return new if new is None else (new, *given[1:])

    handle = module.register_forward_hook(behind) if out else module.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def _keep(into: list[Tensor], tap: Tap, value: Tensor) -> None:
    into.append(value[0][:, tap.index.to(value.device)])
