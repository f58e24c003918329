"""The experts of a mixture, opened: their neurons can be read, changed and trained like those of one wide MLP.

transformers keeps the weights of a layer's experts in two tensors and runs them in one function, in which no neuron
can be reached. An opened module computes the same numbers in two steps: first the neurons of all experts side by side,
each times the router's weight for its expert, which is zero where the expert was not chosen; then their sum through the
output maps. A neuron is thus what it adds to the stream, and one of an expert that was not chosen can be patched in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_NAMES = {"gate_up_proj", "down_proj"}


class Neurons(nn.Module):
    """The place where the neurons pass, `[token, expert * neuron]`."""

    def forward(self, value: Tensor) -> Tensor:
        return value


class OpenExperts:
    """The forward function of an opened module; `open_experts` mixes it into the module's own class."""

    num_experts: int

    def forward(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        return self.run(hidden, chosen, weights, dict(self.named_parameters()))  # type: ignore[attr-defined]

    def run(self, hidden: Tensor, chosen: Tensor, weights: Tensor, maps: Mapping[str, Tensor]) -> Tensor:
        """The sum of the experts' outputs, `[token, d_model]`.

        Args:
            hidden: `[token, d_model]`.
            chosen: the experts of each token, `[token, choice]`.
            weights: the router's weights for them.
            maps: `gate_up_proj` `[expert, 2 * neuron, d_model]` and `down_proj` `[expert, d_model, neuron]`.
        """
        me: Any = self
        read, write = maps["gate_up_proj"], maps["down_proj"]
        n, width = len(read), read.shape[1] // 2
        neurons = hidden.new_zeros(len(hidden), n, width)
        for expert in range(n):
            token, slot = (chosen == expert).nonzero(as_tuple=True)
            if len(token):
                gate, up = nn.functional.linear(hidden[token], read[expert]).chunk(2, -1)
                value = me.act_fn(gate) * up * weights[token, slot, None].to(hidden.dtype)
                neurons = neurons.index_put((token, torch.full_like(token, expert)), value)
        changed = bool(me.neurons._forward_hooks or me.neurons._forward_pre_hooks) or neurons.requires_grad
        neurons = me.neurons(neurons.flatten(1)).view(len(hidden), n, width)
        out = torch.zeros_like(hidden)
        for expert in range(n):
            if changed:
                out = out + nn.functional.linear(neurons[:, expert], write[expert])
            else:
                token = (chosen == expert).any(-1).nonzero()[:, 0]
                out.index_add_(0, token, nn.functional.linear(neurons[token, expert], write[expert]))
        return out


@torch.no_grad()
def open_experts(hf: nn.Module) -> None:
    """Open every module of experts that computes what an opened one does; the others stay as they are.

    The weights and their names stay too.
    """
    for module in [m for m in hf.modules() if _fused(m)]:
        before = _outputs(module)
        own = type(module)
        module.add_module("neurons", Neurons())
        module.__class__ = type(f"Open{own.__name__}", (OpenExperts, own), {})
        after = _outputs(module)
        near = 1e-4 if before.dtype.itemsize >= 4 else 0.05
        if before.shape != after.shape or (after - before).abs().max() > near * before.abs().max():
            module.__class__ = own
            del module.neurons


def is_open(module: nn.Module) -> bool:
    """Whether a module is one of opened experts."""
    return isinstance(module, OpenExperts)


def _fused(module: nn.Module) -> bool:
    """Whether a module holds experts in the two tensors, without biases, and is not open yet."""
    shapes = {name: p.shape for name, p in module.named_parameters(recurse=False)}
    if shapes.keys() != _NAMES or not hasattr(module, "act_fn") or is_open(module):
        return False
    read, write = shapes["gate_up_proj"], shapes["down_proj"]
    return len(read) == len(write) == 3 and read[1] == 2 * write[2] and (read[0], read[2]) == (write[0], write[1])


def _outputs(module: nn.Module) -> Tensor:
    """What a module of experts makes of five tokens, each with two experts."""
    read = module.get_parameter("gate_up_proj")
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, read.shape[2], generator=generator).to(read)
    chosen = torch.tensor([[i % len(read), (i + 1) % len(read)] for i in range(5)], device=read.device)
    weights = torch.rand(5, 2, generator=generator).to(read)
    return module(hidden, chosen, weights)
