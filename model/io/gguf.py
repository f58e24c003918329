"""Write a model as one GGUF file, the format of llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..._util.errors import UserError
from ..._util.files import atomic

if TYPE_CHECKING:
    from ..edit.edit import Edit
    from ..load import Model

ARCHITECTURES = ("llama", "mistral")


def export_gguf(model: Model, path: str | Path, *, edit: Edit | None = None, pre: str = "default") -> Path:
    """Write weights, configuration and tokenizer as one GGUF file, whole or not at all.

    This works for Llama's architecture (also SmolLM2 and Mistral). Weights are in single precision, or in half
    precision if the model is.

    Args:
        path: a new file that ends in `.gguf`.
        edit: applied while the file is written.
        pre: llama.cpp's name for how the tokenizer splits text, such as `smollm` or `llama-bpe`.

    Raises:
        UserError: another architecture, a tokenizer without byte-pair encoding, or a file that exists already.
    """
    target, config = Path(path), model.hf.config
    if config.model_type not in ARCHITECTURES:
        raise UserError(
            f"{model.name} has the architecture {config.model_type!r}; LOKA writes GGUF for "
            f"{', '.join(ARCHITECTURES)}. Export a Hugging Face folder, and convert it with llama.cpp."
        )
    if target.exists() or target.suffix != ".gguf":
        raise UserError(f"{str(target)!r} exists or does not end in .gguf; name a new file.")
    tokens = _tokens(model)
    if edit is not None:
        with edit.applied(model):
            return export_gguf(model, target, pre=pre)
    with atomic(target) as whole:
        writer = gguf.GGUFWriter(whole, "llama")
        _describe(writer, model)
        _tokenize(writer, model, tokens, pre)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.n_layers)
        for name, parameter in model.parameters.items():
            named = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert named is not None, name
            writer.add_tensor(named, _array(_permute(model, name, parameter.detach().cpu())))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return target


def _describe(writer: gguf.GGUFWriter, model: Model) -> None:
    config: Any = model.hf.config
    writer.add_name(model.name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(model.d_model)
    writer.add_block_count(model.n_layers)
    writer.add_feed_forward_length(model.n_neurons)
    writer.add_head_count(model.n_heads)
    writer.add_head_count_kv(model.n_kv_heads)
    writer.add_key_length(model.d_head)
    writer.add_value_length(model.d_head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(model.d_head)
    rope = getattr(config, "rope_parameters", None) or {}
    writer.add_rope_freq_base(float(rope.get("rope_theta") or getattr(config, "rope_theta", 10_000.0)))
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if model.dtype != torch.float16 else gguf.LlamaFileType.MOSTLY_F16)


def _tokens(model: Model) -> dict[str, Any]:
    """The tokenizer's own description. Raises `UserError` unless it uses byte-pair encoding."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    description = json.loads(backend.to_str()) if backend is not None else {"model": {"type": "slow"}}
    kind = description["model"]["type"]
    if kind != "BPE":
        raise UserError(
            f"the tokenizer of {model.name} is of the kind {kind}; LOKA writes GGUF for byte-pair "
            "encodings. Export a Hugging Face folder instead."
        )
    return description


def _tokenize(writer: gguf.GGUFWriter, model: Model, tokens: dict[str, Any], pre: str) -> None:
    vocabulary = {i: token for token, i in tokens["model"]["vocab"].items()}
    added = {t["id"]: t for t in tokens.get("added_tokens", [])}
    vocabulary |= {i: t["content"] for i, t in added.items()}
    size = model.hf.config.vocab_size
    kinds = gguf.TokenType
    types = [
        kinds.UNUSED if i not in vocabulary else kinds.NORMAL if i not in added
        else kinds.CONTROL if added[i]["special"] else kinds.USER_DEFINED
        for i in range(size)
    ]  # fmt: skip
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([vocabulary.get(i, f"[unused{i}]") for i in range(size)])
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokens["model"]["merges"]])
    for token, add in (
        (model.tokenizer.bos_token_id, writer.add_bos_token_id),
        (model.tokenizer.eos_token_id, writer.add_eos_token_id),
        (model.tokenizer.pad_token_id, writer.add_pad_token_id),
        (model.tokenizer.unk_token_id, writer.add_unk_token_id),
    ):
        if isinstance(token, int):
            add(token)
    if template := getattr(model.tokenizer, "chat_template", None):
        writer.add_chat_template(template)


def _permute(model: Model, name: str, values: Tensor) -> Tensor:
    """Queries and keys in llama.cpp's order, where the two features of each rotated pair lie side by side."""
    heads = {"q_proj": model.n_heads, "k_proj": model.n_kv_heads}.get(name.split(".")[-2])
    if not heads:
        return values
    return rearrange(values, "(head half pair) ... -> (head pair half) ...", head=heads, half=2)


def _array(values: Tensor) -> np.ndarray:
    """A matrix in half precision stays in half precision; everything else becomes single precision."""
    half = values.dtype == torch.float16 and values.ndim > 1
    return values.to(torch.float16 if half else torch.float32).contiguous().numpy()
