"""Train changes of low rank beside a model's matrices (LoRA: Hu et al. 2021, arXiv:2106.09685)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .edit.factors import Factors, factors
from .layout import feature_dim
from .run.onednn import instead

if TYPE_CHECKING:
    from .load import Model


class Adapters:
    """Pairs of factors as trainable parameters; made by `adapted`.

    `parameters`: for each module `[d_in, rank]`, drawn as a linear map's weights are, then `[rank, d_out]`, zeros.
    """

    def __init__(self, model: Model, modules: Sequence[str], rank: int, scale: float, seed: int) -> None:
        self.model, self.modules, self.scale = model, list(modules), scale
        generator = torch.Generator().manual_seed(seed)
        self.parameters: list[nn.Parameter] = []
        for name in self.modules:
            module = model.hf.get_submodule(name)
            d_in, d_out = (module.get_parameter("weight").shape[feature_dim(module, out=o)] for o in (False, True))
            left = (2 * torch.rand(d_in, rank, generator=generator) - 1) / d_in**0.5
            for values in (left, torch.zeros(rank, d_out)):
                self.parameters.append(nn.Parameter(values.to(model.device, model.dtype)))

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of the optimizer."""
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def factors(self) -> tuple[Factors, ...]:
        """What they add to the model's matrices."""
        pairs = zip(self.parameters[::2], self.parameters[1::2], strict=True)
        held = zip(self.modules, pairs, strict=True)
        return tuple(factors(self.model, name, self.scale * left, right) for name, (left, right) in held)


@contextmanager
def adapted(model: Model, modules: Sequence[str], *, rank: int, scale: float, seed: int) -> Iterator[Adapters]:
    """Linear maps that also give `scale * x @ left @ right`, for as long as the context lasts; no weight changes."""
    adapters = Adapters(model, modules, rank, scale, seed)
    with ExitStack() as stack:
        for i, name in enumerate(adapters.modules):
            module = model.hf.get_submodule(name)
            left, right = adapters.parameters[2 * i : 2 * i + 2]
            stack.enter_context(instead(module, _beside(module.forward, left, right, scale)))
        yield adapters


def _beside(
    forward: Callable[[Tensor], Tensor], left: Tensor, right: Tensor, scale: float
) -> Callable[[Tensor], Tensor]:
    return lambda x: forward(x) + scale * (x @ left @ right)
