"""Train slices of a model, or all of it, and restore the weights.

Only the slices are parameters. Their gradients are computed from the rows of the incoming activations and outgoing
gradients that they touch, so that no gradient of a full matrix is ever formed. The backward pass ends at the lowest
layer with a slice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ..._util.errors import UserError
from ..anatomy import feature_dim
from ..experts import OpenExperts, is_open
from ..layout import Slice
from ..run.onednn import linear, product
from ..run.single_precision import is_half, single_precision

if TYPE_CHECKING:
    from ..load import Model


@contextmanager
def scratch(model: Model, slices: Sequence[Slice] | None = None) -> Iterator[Model]:
    """Restore the weights at the end, bit for bit: all of them, or only these slices.

    Without slices, weights of half precision are in float32 while the context lasts (`single_precision`), since most
    steps of training are smaller than what changes them.
    """
    if slices is None and is_half(model):
        with single_precision(model):
            yield model
        return
    whole = {} if slices is not None else {name: p.detach().clone() for name, p in model.parameters.items()}
    parts = [(where, where.read(model.parameters[where.name])) for where in slices or ()]
    try:
        yield model
    finally:
        with torch.no_grad():
            for name, values in whole.items():
                model.parameters[name].copy_(values)
            for where, values in reversed(parts):
                where.write_(model.parameters[where.name], values)


def check_trainable(model: Model) -> None:
    """Refuse to train a model's own weights in float16, in which the optimizer's moments are zero or infinite.

    Raises:
        UserError: the model is in float16, outside of `scratch` and `single_precision`.
    """
    if model.dtype == torch.float16:
        raise UserError(
            f"{model.name} is in float16, in which training its weights gives NaN; train it within scratch(model), "
            "which holds them in float32, or load it with dtype=torch.float32."
        )


@contextmanager
def unfrozen(model: Model, layers: Sequence[int] | None = None) -> Iterator[list[nn.Parameter]]:
    """Make all weights trainable, or those of some layers' blocks, for as long as the context lasts.

    Raises:
        UserError: as `check_trainable`.
    """
    check_trainable(model)
    blocks = None if layers is None else tuple(f"{model.block(layer)}." for layer in layers)
    parameters = [p for name, p in model.hf.named_parameters() if blocks is None or name.startswith(blocks)]
    for p in parameters:
        p.requires_grad_(True)
    try:
        yield parameters
    finally:
        for p in parameters:
            p.requires_grad_(False)
            p.grad = None


class Trainable:
    """Slices as trainable parameters; `sliced` makes them.

    `parameters[i]` has the values of `slices[i]`, in float32 or better, since steps are smaller than the smallest
    change of a bfloat16 weight. After each change, `sync` writes the parameters into the model's weights, which the
    forward pass uses.
    """

    def __init__(self, model: Model, slices: Sequence[Slice]) -> None:
        self.model, self.slices = model, list(slices)
        self.modules = [model.hf.get_submodule(n) for n in dict.fromkeys(w.name.rsplit(".", 1)[0] for w in slices)]
        dtype = torch.promote_types(model.dtype, torch.float32)
        self.parameters = [nn.Parameter(where.read(model.parameters[where.name]).to(dtype)) for where in self.slices]

    @torch.no_grad()
    def write_(self, values: Sequence[Tensor]) -> None:
        """Replace the parameters' values, also in the model."""
        for p, v in zip(self.parameters, values, strict=True):
            p.copy_(v)
        self.sync()

    def sync(self) -> None:
        """Write the parameters into the model."""
        for where, values in zip(self.slices, self.parameters, strict=True):
            where.write_(self.model.parameters[where.name], values.detach())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the context, run the maps without slices, so that all weights can be trained."""
        forwards = {module: module.__dict__.pop("forward") for module in self.modules}
        try:
            yield
        finally:
            for module, forward in forwards.items():
                module.__dict__["forward"] = forward

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take one step of the optimizer, and write it into the model."""
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.sync()


@contextmanager
def sliced(model: Model, slices: Sequence[Slice]) -> Iterator[Trainable]:
    """Turn slices into parameters, for as long as the context lasts. Gradients reach only the slices."""
    trainable = Trainable(model, slices)
    by_module: dict[str, list[tuple[Slice, nn.Parameter]]] = defaultdict(list)
    for where, values in zip(trainable.slices, trainable.parameters, strict=True):
        by_module[where.name.rsplit(".", 1)[0]].append((where, values))
    try:
        for module, parts in zip(trainable.modules, by_module.values(), strict=True):
            module.forward = _forward(module, parts)
        yield trainable
    finally:
        for module in trainable.modules:
            module.__dict__.pop("forward", None)


@contextmanager
def checkpointed(model: Model, *, on: bool = True) -> Iterator[None]:
    """Store only the blocks' inputs for the backward pass, and run the blocks again there.

    This is transformers' own checkpointing, which asks for blocks in training mode. They leave it while they run, so
    that dropout stays off.

    Raises:
        UserError: the architecture has no such blocks.
    """
    blocks = [m for m in model.hf.modules() if isinstance(m, GradientCheckpointingLayer)] if on else []
    if on and not blocks:
        raise UserError(f"transformers cannot checkpoint the blocks of {model.name}; leave out `checkpointing`.")
    before = [(block, block.training) for block in blocks]
    called = (
        "activation" if hasattr(model.hf, "activation_checkpointing_enable") else "gradient"
    )  # its name since transformers 5.23
    if on:
        getattr(model.hf, f"{called}_checkpointing_enable")({"use_reentrant": False})
    try:
        for block in blocks:
            block.training = True
            checkpoint = cast(Any, block)._gradient_checkpointing_func
            cast(Any, block)._gradient_checkpointing_func = partial(_checkpoint, block, checkpoint)
        yield
    finally:
        for block, training in before:
            block.training = training
        if on:
            getattr(model.hf, f"{called}_checkpointing_disable")()


def _checkpoint(block: nn.Module, checkpoint: Callable[..., Any], forward: Callable[..., Any], *args: Any) -> Any:
    """`checkpoint` of a forward function that runs, and runs again, outside of training mode."""

    def quiet(*given: Any, **named: Any) -> Any:
        block.training = False
        try:
            return forward(*given, **named)
        finally:
            block.training = True

    return checkpoint(quiet, *args)


def _forward(module: nn.Module, parts: list[tuple[Slice, nn.Parameter]]) -> Callable[..., Tensor]:
    if is_open(module):
        return partial(_experts_forward, cast(OpenExperts, module), parts)
    out_dim = feature_dim(module, out=True)
    specs = []
    for where, _ in parts:
        kind = "bias" if where.name.endswith(".bias") else "out" if where.dim == out_dim else "in"
        specs.append((kind, where.index))
    values = [v for _, v in parts]

    def forward(x: Tensor) -> Tensor:
        return _SlicedMap.apply(x, module.weight, module.bias, out_dim == 1, specs, *values)

    return forward


class _SlicedMap(torch.autograd.Function):
    """`x @ W.T + b`, where only slices of `W` and `b` are trained."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, specs: Any, *_: Tensor):
        ctx.save_for_backward(x)
        ctx.weight, ctx.transposed, ctx.specs = weight.detach(), transposed, specs
        out = linear(x, weight.t() if transposed else weight, bias)
        return out.clone() if out._is_view() else out  # Falcon's block adds to it in place

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (g,), (x,) = grads, ctx.saved_tensors
        gf, xf = g.flatten(0, -2), x.flatten(0, -2).to(g.dtype)
        dx = None
        if ctx.needs_input_grad[0]:
            weight = ctx.weight.to(g.dtype)  # under autocast, the gradient has lower precision
            dx = product(g, weight.t() if ctx.transposed else weight)
        out = []
        for kind, index in ctx.specs:
            if kind == "bias":
                d = gf[:, index].sum(0)
            elif kind == "out":
                d = gf[:, index].t() @ xf
            else:
                d = gf.t() @ xf[:, index]
            out.append(d.t() if ctx.transposed and kind != "bias" else d)
        return dx, None, None, None, None, *out


def _experts_forward(
    module: OpenExperts, parts: list[tuple[Slice, nn.Parameter]], hidden: Tensor, chosen: Tensor, weights: Tensor
) -> Tensor:
    """The experts with trained slices. Gradients of their whole maps are formed, and cut to the slices."""
    maps: dict[str, Tensor] = dict(cast(nn.Module, module).named_parameters(recurse=False))
    for where, values in parts:
        name = where.name.rpartition(".")[2]
        maps[name] = where.put(maps[name], values)
    return module.run(hidden, chosen, weights, maps)
