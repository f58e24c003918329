"""TransformerLens' `TransformerBridge` around a transformers model, and the transformers model inside a bridge."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from .._util.errors import UserError, first_line
from .anatomy import Anatomy
from .checked import probe_ids
from .run.modules import replace_input, replace_output
from .run.points import POINTS

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


def boot(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> Any:
    """A bridge around a second tree of modules over the same weights.

    Raises:
        UserError: an architecture that TransformerLens does not know.
    """
    from transformer_lens.model_bridge import TransformerBridge

    shared: dict[int, Any] = {id(t): t for t in [*hf.parameters(), *hf.buffers()]}
    tree = copy.deepcopy(hf, shared)
    if not tree.config.architectures:
        tree.config.architectures = [type(hf).__name__]
    # Booting would fetch the tokenizer again by its name, and set its padding side and missing special tokens.
    twin = copy.deepcopy(tokenizer)
    twin.init_kwargs |= {"name_or_path": name, "add_bos_token": True}
    try:
        return TransformerBridge.boot_transformers(
            name, hf_model=tree, tokenizer=twin, device=str(hf.device), dtype=hf.dtype
        )
    except Exception as error:  # adapters of unknown architectures fail in many ways
        raise UserError(
            f"TransformerLens cannot wrap {type(hf).__name__} ({first_line(error)}), so nothing that reads its hooks "
            "works on it: choose exact patching (loka.locate.patching), which needs no bridge, or another model."
        ) from error


@torch.no_grad()
def check_bridge(bridge: Any, hf: PreTrainedModel, blocks: Sequence[str], anatomy: Anatomy) -> None:
    """Raise `UserError` unless a bridge's activations and logits are those of the model.

    `blocks`: the names of the model's blocks. Its queries, keys, values, heads, neurons and logits are compared, and
    what attention and MLP add with the stream. Cost: a forward pass each over six tokens.
    """
    ids = probe_ids(hf)
    given = {"attention_mask": torch.ones_like(ids), "use_cache": False}
    points = [p for p in ("pre", "attn", "mlp", "q", "k", "v", "head", "neuron") if p != "neuron" or anatomy.reads]
    theirs: dict[str, Tensor] = {}
    names = [POINTS[p].format(layer) for layer in range(len(blocks)) for p in points]
    with bridge.hooks(fwd_hooks=[(name, partial(_keep_point, theirs, name)) for name in names]):
        logits = bridge(ids, **given)
    ours: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for layer, block in enumerate(blocks):
            for kind, path in zip("qkv", anatomy.qkv, strict=True):
                keep = partial(_keep, ours, POINTS[kind].format(layer), anatomy.features(kind))
                stack.enter_context(replace_output(hf.get_submodule(f"{block}.{path}"), keep))
            for part, path in (("head", anatomy.out), ("neuron", anatomy.down)):
                if part in points:
                    keep = partial(_keep, ours, POINTS[part].format(layer), None)
                    stack.enter_context(replace_input(hf.get_submodule(f"{block}.{path}"), keep))
        ours["logits"] = hf(input_ids=ids, **given).logits
    theirs["logits"] = logits
    streams = {p: [theirs[POINTS[p].format(layer)] for layer in range(len(blocks))] for p in ("pre", "attn", "mlp")}
    for layer in range(len(blocks) - 1):
        ours[f"the stream after layer {layer}"] = streams["pre"][layer + 1]
        theirs[f"the stream after layer {layer}"] = sum(streams[p][layer] for p in ("pre", "attn", "mlp"))  # type: ignore[assignment]
    near = 1e-3 if hf.dtype.itemsize >= 4 else 0.1
    for name, own in ours.items():
        other = theirs[name].reshape(own.shape) if theirs[name].numel() == own.numel() else None
        if other is None or float((other - own).abs().max()) > near * float(own.abs().max()):
            raise UserError(
                f"TransformerLens computes {type(hf).__name__} in another way than transformers ({name} differs): "
                "choose exact patching (loka.locate.patching), which needs no bridge, or another model."
            )


def _keep_point(into: dict[str, Tensor], name: str, value: Tensor, hook: Any) -> None:
    into[name] = value.detach()


def _keep(into: dict[str, Tensor], name: str, features: Tensor | None, value: Tensor) -> None:
    flat = value.detach().reshape(1, -1, value.shape[-1])
    into[name] = flat if features is None else flat[..., features.to(flat.device)]
