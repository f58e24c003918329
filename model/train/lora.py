"""Trainable low-rank changes to a model's linear maps. Hu et al. 2021, "LoRA", arXiv:2106.09685."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ..anatomy import feature_dim, is_linear
from ..edit.factors import Factors, factors
from ..run.modules import hook_output, replaced_forward

if TYPE_CHECKING:
    from ..load import Model

RANK, SCALE = 8, 2.0
Start = Literal["normal", "uniform"]


@dataclass(frozen=True)
class LowRank:
    """Trainable factors by module; `low_rank` makes them.

    `down`: `[d_in, rank]`, `up`: `[rank, d_out]`, both in float32 or better. A module's output moves by
    `x @ down @ up * scale`.
    """

    model: Model
    down: dict[str, nn.Parameter]
    up: dict[str, nn.Parameter]
    scale: float

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.down.values(), *self.up.values()]

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take one step of the optimizer."""
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def factors(self) -> tuple[Factors, ...]:
        """The change that the factors now make to each matrix."""
        return tuple(factors(self.model, name, self.scale * self.down[name], self.up[name]) for name in self.down)


@contextmanager
def low_rank(
    model: Model,
    modules: Sequence[str] | None = None,
    *,
    rank: int = RANK,
    scale: float = SCALE,
    seed: int = 0,
    start: Start = "normal",
    torch_products: bool = False,
) -> Iterator[LowRank]:
    """Add trainable factors to linear maps, for as long as the context lasts.

    The model's own weights do not change and get no gradient. At first the factors change nothing: `up` is zero.

    Args:
        modules: names of linear maps; `None` means every linear map of every block.
        scale: the paper's alpha divided by the rank.
        seed: the seed that draws `down`.
        start: the distribution of `down` before it is divided by the square root of `d_in`: standard normal, or
            uniform between -1 and 1.
        torch_products: multiply by torch where `onednn_linear` would multiply by oneDNN.
    """
    generator = torch.Generator().manual_seed(seed)
    adapters = LowRank(model, {}, {}, scale)
    with ExitStack() as stack:
        for name in _linear_maps(model) if modules is None else modules:
            module = model.hf.get_submodule(name)
            weight = module.get_parameter("weight")
            d_in, d_out = (weight.shape[feature_dim(module, out=out)] for out in (False, True))
            drawn = _DRAWS[start](d_in, rank, generator=generator) / d_in**0.5
            dtype = torch.promote_types(weight.dtype, torch.float32)
            adapters.down[name] = down = nn.Parameter(drawn.to(weight.device, dtype))
            adapters.up[name] = up = nn.Parameter(torch.zeros(rank, d_out, dtype=dtype, device=weight.device))
            if torch_products:
                stack.enter_context(replaced_forward(module, module.forward))  # `onednn_linear` leaves such a map alone
            stack.enter_context(hook_output(module, _added(down, up, scale)))
        yield adapters


def _uniform(*shape: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(*shape, generator=generator) - 1


_DRAWS: dict[Start, Callable[..., Tensor]] = {"normal": torch.randn, "uniform": _uniform}


def _linear_maps(model: Model) -> list[str]:
    blocks = tuple(f"{model.block(layer)}." for layer in range(model.n_layers))
    return [name for name, module in model.hf.named_modules() if name.startswith(blocks) and is_linear(module)]


def _added(down: Tensor, up: Tensor, scale: float) -> Callable[[tuple[Tensor, ...], Tensor], Tensor]:
    return lambda inputs, out: out + (inputs[0].to(down.dtype) @ down @ up * scale).to(out.dtype)
