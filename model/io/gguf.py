"""Write a model as one GGUF file, the format of llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..._util.errors import UserError
from ..._util.files import atomic
from .gguf_tokens import GgufTokens, gguf_tokens

if TYPE_CHECKING:
    from ..edit.edit import Edit
    from ..load import Model

CLASSES = ("LlamaForCausalLM", "MistralForCausalLM")


def export_gguf(model: Model, path: str | Path, *, edit: Edit | None = None, pre: str | None = None) -> Path:
    """Write weights, configuration and tokenizer as one GGUF file, whole or not at all.

    This works for Llama's architecture (also SmolLM2 and Mistral) without biases and without scaled rotary positions,
    and for byte-level tokenizers. Weights are in single precision, or in half precision if the model is. A model with a
    sliding window is written with the window as its context length, because llama.cpp has no window for it.

    Args:
        path: a new file that ends in `.gguf`.
        edit: applied while the file is written.
        pre: llama.cpp's name for how the tokenizer splits text. LOKA knows `gpt-2`, `smollm` and `llama-bpe` when it
            sees them; other tokenizers need the name here.

    Raises:
        UserError: a model or tokenizer that the file cannot hold exactly, or a file that exists already.
    """
    target = Path(path)
    if target.exists() or target.suffix != ".gguf":
        raise UserError(f"{str(target)!r} exists or does not end in .gguf; name a new file.")
    if reason := next(_reasons(model), None):
        raise UserError(
            f"{model.name} {reason}, and LOKA cannot write that as GGUF; export a Hugging Face folder, and convert it "
            "with llama.cpp."
        )
    tokens = gguf_tokens(model, pre)
    if edit is not None:
        with edit.applied(model):
            return export_gguf(model, target, pre=pre)
    with atomic(target) as whole:
        writer = gguf.GGUFWriter(whole, "llama")
        _describe(writer, model)
        _tokenize(writer, tokens)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.n_layers)
        for name, parameter in model.parameters.items():
            named = names.get_name(name, try_suffixes=(".weight",))
            assert named is not None, name
            writer.add_tensor(named, _array(_permute(model, name, parameter.detach().cpu())))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return target


def _reasons(model: Model) -> Iterator[str]:
    """What llama.cpp's architecture `llama`, or transformers' reader of it, would compute differently."""
    config: Any = model.hf.config
    kind = type(model.hf).__name__
    if kind not in CLASSES:
        yield f"is a {kind}, not one of {', '.join(CLASSES)}"
        return
    if config.hidden_act not in ("silu", "swish"):
        yield f"has the activation {config.hidden_act!r}, not 'silu'"
    if biases := [name for name in model.parameters if name.endswith(".bias")]:
        yield f"has biases ({biases[0]})"
    if (scaling := _rope(config).get("rope_type", "default")) != "default" or not _plain_rotation(model):
        yield f"scales its rotary positions ({scaling})"
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.n_layers)
    if unknown := [name for name in model.parameters if names.get_name(name, try_suffixes=(".weight",)) is None]:
        yield f"has the weight {unknown[0]}"


def _plain_rotation(model: Model) -> bool:
    """Whether all features of a head are rotated by the frequencies that follow from the base alone."""
    rotary: Any = model.hf.get_submodule("model.rotary_emb")
    found = rotary.inv_freq.detach().double().cpu()
    plain = _base(model) ** -(torch.arange(0, model.d_head, 2, dtype=torch.float64) / model.d_head)
    same = found.shape == plain.shape and torch.allclose(found, plain, rtol=1e-5, atol=0)
    return same and getattr(rotary, "attention_scaling", 1.0) == 1.0


def _rope(config: Any) -> dict[str, Any]:
    return getattr(config, "rope_parameters", None) or {}


def _base(model: Model) -> float:
    config = model.hf.config
    return float(_rope(config).get("rope_theta") or getattr(config, "rope_theta", 10_000.0))


def _describe(writer: gguf.GGUFWriter, model: Model) -> None:
    config: Any = model.hf.config
    window = getattr(config, "sliding_window", None) or config.max_position_embeddings
    writer.add_name(Path(model.name).name)
    writer.add_context_length(min(config.max_position_embeddings, window))
    writer.add_embedding_length(model.d_model)
    writer.add_block_count(model.n_layers)
    writer.add_feed_forward_length(model.n_neurons)
    writer.add_head_count(model.n_heads)
    writer.add_head_count_kv(model.n_kv_heads)
    writer.add_key_length(model.d_head)
    writer.add_value_length(model.d_head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(model.d_head)
    writer.add_rope_freq_base(_base(model))
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if model.dtype != torch.float16 else gguf.LlamaFileType.MOSTLY_F16)


def _tokenize(writer: gguf.GGUFWriter, tokens: GgufTokens) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokens.pre)
    writer.add_token_list(tokens.tokens)
    writer.add_token_types(tokens.types)
    writer.add_token_merges(tokens.merges)
    writer.add_add_bos_token(tokens.adds_bos)
    writer.add_add_eos_token(tokens.adds_eos)
    add = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "pad": writer.add_pad_token_id,
        "unk": writer.add_unk_token_id,
    }
    for kind, token in tokens.special.items():
        add[kind](token)
    if tokens.template:
        writer.add_chat_template(tokens.template)


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
