"""Digests of a model: its weights, the part of its configuration that numbers depend on, and its tokenizer."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .ends import end_ids

# What a configuration says about files, outputs and training. Numbers do not depend on it, or are covered by the rest:
# the type of the weights stands with them, and the attention's implementation rounds differently, no more.
_ASIDE = {
    "_name_or_path", "transformers_version", "architectures", "auto_map", "dtype", "torch_dtype", "use_cache",
    "return_dict", "output_hidden_states", "output_attentions", "_attn_implementation", "attn_implementation",
    "_experts_implementation", "experts_implementation", "problem_type", "id2label", "label2id",
    "chunk_size_feed_forward", "initializer_range", "quantization_config", "pad_token_id", "tie_weights",
    "pretraining_tp",
}  # fmt: skip
_WIDTH = 1024  # int64 numbers in a row of a checksum


def digest(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the names, shapes and bytes of all weights, of configuration, tokenizer and the ends of texts."""
    total = hashlib.sha256()
    for name, tensor in _tensors(hf):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        total.update(_bytes(tensor).cpu().numpy().data)
    for part in (_settings(hf.config.to_dict()), _tokenizer(tokenizer), *_further_ends(hf, tokenizer)):
        total.update(json.dumps(part, sort_keys=True, default=str).encode())
    return total.hexdigest()


def checksum(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """A number that changes when a weight, a setting or the tokenizer does. Cost: one pass over the weights in memory.

    Version counters of torch do not do: writes through `.data` or numpy do not move them. The sums are of whole
    numbers, so they are exact and depend on no thread count.
    """
    parts: list[object] = [json.dumps(_settings(hf.config.to_dict()), sort_keys=True, default=str)]
    parts += [*_further_ends(hf, tokenizer), len(tokenizer), tokenizer.chat_template, str(tokenizer.special_tokens_map)]
    return hash((*parts, checksum_of(_tensors(hf))))


def checksum_of(tensors: Iterable[tuple[str, Tensor]]) -> int:
    """A number that changes when one of these named tensors does. Cost: one pass over them in memory."""
    return hash(tuple((n, tuple(t.shape), t.dtype, *_sums(_bytes(t))) for n, t in tensors))


def _tensors(hf: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Parameters and the buffers that a file of weights holds. Tied weights appear once."""
    yield from hf.named_parameters()
    stored = hf.state_dict().keys()
    yield from ((name, buffer) for name, buffer in hf.named_buffers() if name in stored)


def _bytes(tensor: Tensor) -> Tensor:
    return (
        tensor.detach().contiguous().view(-1).view(torch.uint8)
        if math.prod(tensor.shape)
        else torch.zeros(0, dtype=torch.uint8)
    )


def _sums(of: Tensor) -> tuple[bytes, ...]:
    """The sums of rows and columns of a tensor's bytes, read as a table of int64, and the bytes that are left over."""
    whole = len(of) // (8 * _WIDTH) * 8 * _WIDTH
    found = [of[whole:]]
    if whole:
        table = of[:whole].view(torch.int64).view(-1, _WIDTH)
        found += [table.sum(1), table.sum(0)]
    return tuple(part.cpu().numpy().tobytes() for part in found)


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that numbers depend on."""
    nested = {k: _settings(v) if isinstance(v, dict) else v for k, v in config.items()}
    return {k: v for k, v in nested.items() if k not in _ASIDE and v is not None}


def _further_ends(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ends of a text that only the generation configuration names."""
    of_config: Any = hf.config.eos_token_id
    of_tokenizer: Any = tokenizer.eos_token_id
    known = {of_tokenizer, *(of_config if isinstance(of_config, list) else [of_config])}
    return sorted(set(end_ids(hf, tokenizer)) - known)


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What a tokenizer does to a text. Padding is masked, and the state of the last call does not count."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = json.loads(backend.to_str()) if backend is not None else {"vocabulary": tokenizer.get_vocab()}
    special = {k: str(v) for k, v in tokenizer.special_tokens_map.items() if k != "pad_token"}
    own = {k: v for k, v in text.items() if k not in ("padding", "truncation")}
    return {"own": own, "special": special, "chat": tokenizer.chat_template}
