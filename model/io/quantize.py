"""Round weights to a few bits, as people who download a model do."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from ..._util.errors import UserError
from ..anatomy import feature_dim
from ..experts import open_experts
from ..load import Model

GROUP = 64
BITS = range(2, 17)


def quantized(model: Model, bits: int, *, group: int = GROUP) -> Model:
    """A copy of a model with the matrices of its blocks rounded to the nearest of `2 ** bits - 1` levels.

    Rounding is symmetric, with one scale for every `group` input features of an output feature. Embeddings, norms and
    biases do not change. The copy is the plain architecture with these weights. It has none of the original's hooks and
    wrappers, such as an output filter. Memory: one more copy of the weights.

    Raises:
        UserError: bits below 2 or above 16.
    """
    if bits not in BITS:
        raise UserError(f"weights cannot be rounded to {bits} bits; choose {BITS[0]} to {BITS[-1]}.")
    copy = bare(model)
    inside = copy.block(0).removesuffix("0")
    with torch.no_grad():
        for name, module in copy.hf.named_modules():
            weight = getattr(module, "weight", None)
            if name.startswith(inside) and isinstance(weight, Tensor) and weight.ndim == 2:
                transposed = feature_dim(module, out=True) == 1
                rounded = round_to(weight.t() if transposed else weight, bits, group=group)
                weight.copy_(rounded.t() if transposed else rounded)
        for name, weight in copy.parameters.items():
            if name.startswith(inside) and weight.ndim == 3:  # the maps of experts, `[expert, out, in]`
                weight.copy_(round_to(weight.flatten(0, 1), bits, group=group).view(weight.shape))
    return copy


def bare(model: Model) -> Model:
    """The same weights in a model of the plain architecture, without hooks or wrappers.

    Raises:
        UserError: weights that this architecture does not have.
    """
    with torch.random.fork_rng(devices=[]):
        hf = AutoModelForCausalLM.from_config(model.hf.config, dtype=model.dtype)
    weights = model.hf.state_dict()
    if extra := sorted(set(weights) - set(hf.state_dict())):
        raise UserError(
            f"{model.name} has a weight {extra[0]!r} that a plain {type(hf).__name__} does not have; "
            "audit the model without it, or merge it into the others first."
        )
    hf.load_state_dict(weights)
    open_experts(hf)
    return Model(hf.to(model.device).eval().requires_grad_(False), model.tokenizer, model.name)


def round_to(weight: Tensor, bits: int, *, group: int = GROUP) -> Tensor:
    """A matrix `[out, in]` rounded in groups of input features.

    >>> round_to(torch.tensor([[0.0, 0.4, 0.6, 1.0]]), 2)
    tensor([[0., 0., 1., 1.]])
    """
    levels = 2 ** (bits - 1) - 1
    parts = []
    for part in weight.split(group, dim=1):
        scale = part.abs().amax(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / levels
        parts.append((part / scale).round() * scale)
    return torch.cat(parts, 1)
