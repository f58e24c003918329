"""Refuse a GGUF file if transformers would drop a part of it that changes numbers."""

from __future__ import annotations

from pathlib import Path

import gguf

from ..._util.errors import UserError

# Tensors that transformers' reader has no place for: the factors of scaled rotary positions, and Llama's biases.
SCALED = ("rope_freqs", "rope_factors")


def check_gguf(path: Path) -> None:
    """Look at a file's header and its tensors' names before transformers reads it.

    Raises:
        UserError: the file cannot be read, scales its rotary positions, or has biases in Llama's architecture.
    """
    try:
        reader = gguf.GGUFReader(path)
        keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.")}
    except (OSError, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"the GGUF file {str(path)!r} cannot be read ({error}); download or write it again.") from error
    names, kind = [tensor.name for tensor in reader.tensors], keys.get("general.architecture")
    lost = [name for name in names if name.startswith(SCALED) or (kind == "llama" and name.endswith(".bias"))]
    lost += [name for name, value in keys.items() if name.endswith(".rope.scaling.type") and value != "none"]
    if lost and kind != "gpt-oss":
        raise UserError(
            f"the GGUF file {str(path)!r} has {lost[0]}, which transformers does not read, so its numbers would be "
            "wrong; give the model's folder with safetensors."
        )
