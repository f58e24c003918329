"""The edit or model that a path or a hub id names, checked to be comparable with the original."""

from __future__ import annotations

from pathlib import Path

from .. import ablate
from .._util.errors import UserError
from ..model import Edit, Model, is_adapter, load, read_adapter


def resolve(before: Model, after: Edit | Model | str | Path) -> Edit | Model:
    """The edit or model that `after` names, checked to be comparable with `before`.

    A file is an edit, a folder with `adapter_config.json` a low-rank adapter, anything else a model.

    Raises:
        UserError: a model with another tokenizer or shape, an edit or adapter that was made for another model, or an
            edit whose control cannot be made from its record.
    """
    if isinstance(after, str | Path):
        if str(after).endswith(".safetensors"):
            after = Edit.load(after)
        elif is_adapter(after):
            after = read_adapter(before, after)
        else:
            after = load(str(after), dtype=before.dtype, device=str(before.device))
    if isinstance(after, Edit):
        if after.record.sites:
            ablate.check_rerun(after)
        with after.applied(before):
            return after
    if after.tokenizer.get_vocab() != before.tokenizer.get_vocab():
        raise UserError(
            f"{after.name} and {before.name} have different tokenizers; audit a model made from the original."
        )
    shapes = {n: p.shape for n, p in before.parameters.items()}
    if shapes != {n: p.shape for n, p in after.parameters.items()}:
        raise UserError(f"{after.name} and {before.name} have different shapes; audit a model made from the original.")
    return after
