"""Write a model as an ordinary Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..._util.errors import UserError
from ..._util.files import atomic

if TYPE_CHECKING:
    from ..edit.edit import Edit
    from ..load import Model


def export(model: Model, folder: str | Path, *, edit: Edit | None = None) -> Path:
    """Write config, weights (safetensors) and tokenizer, so that transformers alone gives the same logits.

    The folder appears whole or not at all.

    Args:
        folder: a folder that does not exist or is empty.
        edit: applied while the files are written.

    Raises:
        UserError: the folder is not empty, or cannot be written.
        LokaError: the disk is full.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{str(target)!r} is not empty; name a new folder for the exported model.")
    if edit is not None:
        with edit.applied(model):
            return export(model, target)
    with atomic(target) as whole:
        model.hf.save_pretrained(whole)
        model.tokenizer.save_pretrained(whole)
    return target
