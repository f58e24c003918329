"""Low-rank factors beside a model's linear maps, to be trained. Hu et al. 2021, "LoRA", arXiv:2106.09685."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..edit.factors import Factors, factors
from ..layout import feature_dim

if TYPE_CHECKING:
    from ..load import Model

RANK, ALPHA = 8, 16.0


@dataclass(frozen=True)
class LowRank:
    """Factors by module: `down` `[d_in, rank]`, `up` `[rank, d_out]`; outputs move by `x @ down @ up * scale`."""

    model: Model
    down: dict[str, nn.Parameter]
    up: dict[str, nn.Parameter]
    scale: float

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.down.values(), *self.up.values()]

    def factors(self) -> tuple[Factors, ...]:
        """What they are now, as changes to the matrices."""
        return tuple(factors(self.model, name, self.down[name], self.scale * self.up[name]) for name in self.down)


@contextmanager
def low_rank(model: Model, *, rank: int = RANK, alpha: float = ALPHA, seed: int = 0) -> Iterator[LowRank]:
    """Trainable factors beside every linear map of the blocks, for as long as the context lasts.

    The model's own weights stay as they are and get no gradient. At first the factors change nothing: `down` is
    drawn by the seed, `up` is zero.
    """
    generator = torch.Generator().manual_seed(seed)
    down, up = {}, {}
    with ExitStack() as stack:
        for name, module in _maps(model).items():
            weight = module.get_parameter("weight")
            wide, tall = (weight.shape[feature_dim(module, out=out)] for out in (False, True))
            start = torch.randn(wide, rank, generator=generator) / wide**0.5
            down[name] = nn.Parameter(start.to(weight))
            up[name] = nn.Parameter(torch.zeros(rank, tall).to(weight))
            hook = _added(down[name], up[name], alpha / rank)
            stack.callback(module.register_forward_hook(hook).remove)
        yield LowRank(model, down, up, alpha / rank)


def _maps(model: Model) -> dict[str, nn.Module]:
    blocks = tuple(f"{model.block(layer)}." for layer in range(model.n_layers))
    return {
        name: module
        for name, module in model.hf.named_modules()
        if name.startswith(blocks) and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    }


def _added(down: Tensor, up: Tensor, scale: float):
    return lambda _module, inputs, out: out + inputs[0] @ down @ up * scale
