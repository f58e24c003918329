"""The transformers model inside a `TransformerBridge`, over the same weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from .._util.errors import UserError

INNER = "._original_component"


def unbridged(bridge: Any) -> PreTrainedModel:
    """A plain model with the tensors of a bridge, which wraps its own in place; no weight is copied.

    Raises:
        UserError: a bridge in compatibility mode, which has rewritten the model's weights, or one whose weights do not
            fit its configuration.
    """
    if getattr(bridge, "compatibility_mode", False):
        raise UserError(
            "the bridge is in compatibility mode, which rewrites the model's weights; wrap it before "
            "enable_compatibility_mode is called, or give the transformers model itself."
        )
    inner = bridge.original_model
    weights = {name.replace(INNER, ""): p for name, p in inner.named_parameters(remove_duplicate=False)}
    buffers = {name.replace(INNER, ""): b for name, b in inner.named_buffers()}
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(copy.deepcopy(inner.config), dtype=inner.dtype)
    missing = [name for name, _ in plain.named_parameters() if name not in weights]
    if missing:
        raise UserError(f"the bridge has no weight {missing[0]!r} of its model; give the transformers model itself.")
    for name, _ in [*plain.named_parameters(remove_duplicate=False)]:
        _set(plain, name, weights.get(name))
    for name, _ in [*plain.named_buffers()]:
        _set(plain, name, buffers.get(name))
    plain.tie_weights()
    return plain


def _set(model: torch.nn.Module, name: str, value: torch.Tensor | None) -> None:
    """Put a tensor in the place of a module's own."""
    path, _, last = name.rpartition(".")
    module = model.get_submodule(path)
    if isinstance(value, torch.nn.Parameter):
        module._parameters[last] = value
    elif value is not None:
        module._buffers[last] = value
