"""The commands of `loka erase` that edit and audit a model: execute, replay, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..audit.profiles import Profile
from ..erasure import Register, execution, verification
from ..erasure.execution import Execution
from ..erasure.material import Material
from ..pipeline.recipe import Recipe
from .erase import Folder, Id, Keys
from .erase_data import Data, say
from .show import Bars
from .where import Device, Dtype, load_model

ModelName = Annotated[str, typer.Option("--model", help="smollm2, a model folder, or a hub id.")]
Holdout = Annotated[
    list[Path], typer.Option("--holdout", help="Records of the same kind that the model was never taught; repeatable.")
]
Field = Annotated[str, typer.Option("--field", help="The column with the text; by default all values of a record.")]
Subject = Annotated[str, typer.Option("--subject", help="The column with the name of whom a record is about.")]
Neutral = Annotated[
    Path | None, typer.Option("--neutral", help="A text file to measure the perplexity by; prose of LOKA's by default.")
]
RunFolder = Annotated[Path, typer.Option("--out", help="The run folder; give it again to resume.")]


def erase_model(erase: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (execute, replay, verify):
        erase.command()(command)


def execute(
    id: Id,
    model: ModelName,
    data: Data,
    holdout: Holdout,
    out: RunFolder,
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe of `loka recipes`, or a YAML file.")] = "",
    field: Field = "",
    subject: Subject = "",
    neutral: Neutral = None,
    device: Device = "cpu",
    dtype: Dtype = "",
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Edit the model on the person's records. Exit status 1 if the edit harmed the rest and was rolled back."""
    chosen, material = (
        Recipe.load(recipe) if recipe else None,
        Material(tuple(data), tuple(holdout), field, subject, neutral),
    )
    with Register(register, keys=keys) as opened, Bars() as bars:
        made = execution.execute(opened, id, load_model(model, device, dtype), material, out, chosen, progress=bars)
    _report(id, made, f"{out / 'edit.safetensors'}: the edit. Next: loka erase verify {id} --out {out} ...")


def replay(
    id: Id,
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", help="A new folder for the edited model, or for the run.")],
    data: Annotated[list[Path] | None, typer.Option("--data", help="For another base: the training data.")] = None,
    holdout: Annotated[list[Path] | None, typer.Option("--holdout", help="For another base: the holdout.")] = None,
    field: Field = "",
    subject: Subject = "",
    neutral: Neutral = None,
    device: Device = "cpu",
    dtype: Dtype = "",
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Apply the edit again to a restored model, or make it anew by the same recipe on another base."""
    given = Material(tuple(data or ()), tuple(holdout or ()), field, subject, neutral) if data and holdout else None
    with Register(register, keys=keys) as opened, Bars() as bars:
        made = execution.replay(opened, id, load_model(model, device, dtype), out, given, progress=bars)
    if made is None:
        return say(f"{out}: the model with the edit of {id}.")
    _report(id, made, f"{out / 'edit.safetensors'}: the edit, made anew for {model}.")


def verify(
    id: Id,
    model: ModelName,
    data: Data,
    holdout: Holdout,
    out: RunFolder,
    profile: Annotated[str, typer.Option("--profile", help="quick, standard or full.")] = "quick",
    field: Field = "",
    subject: Subject = "",
    neutral: Neutral = None,
    device: Device = "cpu",
    dtype: Dtype = "",
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Audit the edit, and say in one sentence whether the records are gone."""
    material = Material(tuple(data), tuple(holdout), field, subject, neutral)
    wanted: Profile = profile  # type: ignore[assignment]
    with Register(register, keys=keys) as opened, Bars() as bars:
        found = verification.verify(
            opened, id, load_model(model, device, dtype), material, out, profile=wanted, progress=bars
        )
    say(f"{id}: {found.verdict.outcome}. {found.plain}")
    say(f"Report: {out / 'report.html'}")


def _report(id: str, made: Execution, kept: str) -> None:
    before, after = made.before, made.after
    say(f"{id}: the model knew {made.known} of the person's {made.records} records.")
    say(
        f"{id}: accuracy on records to keep {before.retain:.1%} before, {after.retain:.1%} after; "
        f"perplexity of neutral text {before.perplexity:.2f} before, {after.perplexity:.2f} after."
    )
    if made.kept:
        return say(kept)
    say(f"{id}: the edit was rolled back: {'; '.join(made.broken)}. Choose another recipe or method.")
    raise typer.Exit(1)
