"""The commands on a run folder that is there: `loka ablate`, `report` and `export`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from .._util.errors import UserError
from .._util.files import check_writable
from .._util.lock import locked
from ..model import Edit, export_adapter, export_gguf
from ..model import export as export_model
from ..pipeline.recipe import Recipe
from ..pipeline.run import Run
from ..report import write
from .bars import Bars
from .options import CaseAgain, Folder, RecipeName, out
from .where import Device, Dtype, read_dtype


def ablate(
    folder: Folder,
    device: Device = "cpu",
    dtype: Dtype = "",
    recipe: RecipeName = "",
    case: CaseAgain = "",
) -> None:
    """Edit the sites that `loka locate` found in this folder."""
    chosen = Recipe.load(recipe) if recipe else None
    with Bars() as bars:
        current = Run(folder, device=device, dtype=read_dtype(dtype), recipe=chosen, case=case or None, progress=bars)
        edit = current.edit()
    out.print(
        f"{folder / 'edit.safetensors'}: {edit.parameters:,} weights, {edit.share(current.model):.2%} of the model."
    )


def report(
    folder: Folder,
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave the items' text out of the report; the other files stay.")
    ] = False,
) -> None:
    """Write the HTML report and the figures of a run folder."""
    with locked(folder) if folder.is_dir() else nullcontext():
        out.print(f"{write(folder, redact=redact)}")


def export(
    folder: Folder,
    to: Annotated[Path, typer.Option("--to", help="A new folder, or a new .gguf file.")],
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write only the edit, as a LoRA adapter for peft.")
    ] = False,
    case: CaseAgain = "",
) -> None:
    """Write the edited model as an ordinary Hugging Face folder or as GGUF, or the edit as an adapter."""
    if not (folder / "edit.safetensors").exists():
        raise UserError(f"there is no edit file in {str(folder)!r}; `loka ablate {folder}` writes one.")
    check_writable(to.parent)
    current = Run(folder, case=case or None)
    edit = Edit.load(folder / "edit.safetensors")
    if adapter:
        out.print(f"{export_adapter(current.model, edit, to)}: load it with peft's PeftModel.from_pretrained.")
        return
    if to.suffix == ".gguf":
        out.print(f"{export_gguf(current.model, to, edit=edit)}: load it with llama.cpp or transformers' gguf_file=.")
        return
    export_model(current.model, to, edit=edit)
    out.print(f"{to}: load it with transformers' AutoModelForCausalLM.from_pretrained({str(to)!r}).")
