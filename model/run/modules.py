"""Change one module's input, output or forward function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Change = Callable[[Tensor], Tensor | None]
Output = Tensor | tuple[Tensor, ...]


def first_tensor(output: Output) -> Tensor:
    """A module's output, or the first part of it: some blocks and attentions return more than their state."""
    return output if isinstance(output, Tensor) else output[0]


@contextmanager
def hook_output(module: nn.Module, change: Callable[[tuple[Any, ...], Tensor], Tensor | None]) -> Iterator[None]:
    """Pass a module's output through `change(inputs, output)`, for as long as the context lasts.

    `inputs`: the module's positional arguments; `output`: its output, or the first part of it. If `change` returns a
    tensor, it replaces the output.
    """

    def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Output) -> Output | None:
        new = change(inputs, first_tensor(output))
        return new if new is None or isinstance(output, Tensor) else (new, *output[1:])

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def replace_output(module: nn.Module, change: Change) -> Iterator[None]:
    """Pass a module's output through `change`, which returns a new one, or `None` to leave it."""
    with hook_output(module, lambda _, output: change(output)):
        yield


@contextmanager
def replace_input(module: nn.Module, change: Change) -> Iterator[None]:
    """Pass a module's first input through `change`, which returns a new one, or `None` to leave it."""

    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        new = change(inputs[0])
        return None if new is None else (new, *inputs[1:])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give a module another forward function, for as long as the context lasts."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before
