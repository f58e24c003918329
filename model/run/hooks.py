"""Read and replace activations at TransformerLens' hook points."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..._util.errors import UserError
from ..batch import Batch
from ..site import PARTS
from .modules import replace_output
from .points import POINTS

if TYPE_CHECKING:
    from ..load import Model

Hook = Callable[[Tensor], Tensor | None]


def point(part: str, layer: int = 0) -> str:
    """The name of the hook point that carries a part of a layer.

    Raises:
        UserError: a part without a hook point of its own.
    """
    if part not in POINTS:
        raise UserError(
            f"{part!r} has no activations of its own to record; choose one of "
            f"{', '.join(p for p in PARTS if p in POINTS)}."
        )
    return POINTS[part].format(layer)


@dataclass(frozen=True)
class Recording:
    """`logits` `[row, keep, vocabulary]` and the activations by name of hook point."""

    logits: Tensor
    activations: dict[str, Tensor]


def record(
    model: Model,
    batch: Batch,
    points: Sequence[str],
    *,
    grad: bool = False,
    hooks: Sequence[tuple[str, Hook]] = (),
) -> Recording:
    """Run a batch once and record the activations at hook points, as `hooks` leave them.

    With `grad`, everything after the embedding is on one graph, so that `torch.autograd.grad` gives the gradient at
    every point in one backward pass. Weights get no gradient.
    """
    activations: dict[str, Tensor] = {}

    def keep(name: str) -> Hook:
        def hook(value: Tensor) -> Tensor:
            activations[name] = value
            return value  # `value` may be a view; returning it puts it on the graph

        return hook

    leaf: list[tuple[str, Hook]] = [(point("embed"), lambda value: value.detach().requires_grad_(True))]
    every = [*hooks, *(leaf if grad else ()), *((name, keep(name)) for name in points)]
    with torch.set_grad_enabled(grad):
        return Recording(run(model, batch, every), activations)


def run(model: Model, batch: Batch, hooks: Sequence[tuple[str, Hook]]) -> Tensor:
    """Logits `[row, keep, vocabulary]` of a batch with hooks in place."""
    bridge = model.bridge
    of_experts = {point("neuron", i): i for i in range(model.n_layers)} if model.anatomy.experts else {}
    wrapped = [(name, _ignore_point(hook)) for name, hook in hooks if name not in of_experts]
    with ExitStack() as stack:
        for name, hook in hooks:
            if name in of_experts:  # the bridge has no point there
                module = bridge.blocks[of_experts[name]].mlp.original_component.get_submodule(_below_mlp(model))
                stack.enter_context(replace_output(module, partial(_by_row, batch, hook)))
        stack.enter_context(bridge.hooks(fwd_hooks=wrapped))
        out = bridge(
            batch.ids,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            logits_to_keep=batch.keep + 1,
            use_cache=False,
        )
    return out[:, -batch.keep - 1 : -1]


@contextmanager
def frozen_norms(model: Model) -> Iterator[list[tuple[str, Hook]]]:
    """Hooks that make the norms after heads and MLPs and the final norm linear: their scale is a constant."""
    names = [f"blocks.{i}.{n}.hook_scale" for i in range(model.n_layers) for n in ("ln1_post", "ln2_post")]
    there = [n for n in [*names, "ln_final.hook_scale"] if n in model.bridge.hook_dict]
    with warnings.catch_warnings():
        # TransformerLens warns that its own code, which rounds differently, computes such a norm
        warnings.filterwarnings("ignore", message="A forward hook edited hook_scale")
        yield [(name, lambda scale: scale.detach()) for name in there]


def _below_mlp(model: Model) -> str:
    """The place where the neurons of experts pass, below the MLP."""
    return model.anatomy.down.removeprefix(f"{model.anatomy.mlp}.")


def _by_row(batch: Batch, hook: Hook, value: Tensor) -> Tensor | None:
    """A hook on `[row, position, neuron]`, where a module sees positions without rows."""
    new = hook(value.view(*batch.ids.shape, -1))
    return None if new is None else new.reshape(value.shape)


def _ignore_point(hook: Hook) -> Callable[..., Tensor | None]:
    def call(value: Tensor, hook: Any = None, _run: Hook = hook) -> Tensor | None:
        return _run(value)

    return call
