"""The commands of `loka erase` that change and audit a model: execute, batch, replay, verify."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, cast, get_type_hints

import typer

from .._util.errors import UserError
from .._util.files import check_writable
from .._util.records import read_record
from .._util.yaml_text import read_yaml
from ..ablate import Training
from ..audit.profiles import Profile, effort
from ..erasure import Register, execution, retraining, sharding, verification
from ..erasure import replay as replays
from ..erasure.batch import due
from ..erasure.material import Material
from ..erasure.outcome import Execution
from ..erasure.overview import SOON
from ..erasure.retraining import Restart
from ..erasure.sharding import Sharded
from ..model import load
from ..pipeline.recipe import Recipe
from .bars import Bars
from .erase import Folder, Id, Keys
from .erase_data import Device, say

ModelName = Annotated[str, typer.Option("--model", help="smollm2, a model folder, or a hub id.")]
RunFolder = Annotated[Path, typer.Option("--out", help="The run folder; give it again to resume.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="A recipe of `loka recipes`, or a YAML file.")]
Retrained = Annotated[
    str, typer.Option("--retrained", help="The model that you trained again elsewhere, on data without the records.")
]
Another = Annotated[
    bool, typer.Option("--another-model", help="The model is none that an earlier erasure was executed on.")
]


def _options(
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="A training file or a folder of them; give it again for more.")
    ] = None,
    holdout: Annotated[
        list[Path] | None,
        typer.Option("--holdout", help="Records of the same kind that the model was never taught; repeatable."),
    ] = None,
    field: Annotated[
        str, typer.Option("--field", help="The column with the text; by default all values of a record.")
    ] = "",
    subject: Annotated[str, typer.Option("--subject", help="The column with the name of whom a record is about.")] = "",
    neutral: Annotated[
        Path | None,
        typer.Option("--neutral", help="A text file to measure the perplexity by; prose of LOKA's by default."),
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option("--earlier", help="Data with the records of earlier erasures, if --data lacks them; repeatable."),
    ] = None,
) -> Material | None:
    """The options that name the data of a request; `None` without data and holdout."""
    if not data or not holdout:
        return None
    return Material(tuple(data), tuple(holdout), field, subject, neutral, tuple(earlier or ()))


def on_material(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `material` is made of the options above; data and holdout may be missing if it may.

    It is refused before a model is read where `out` cannot be written to.
    """
    own, options = _parameters(command), _parameters(_options)
    material = own.pop("material")
    needed = ("data", "holdout") if material.annotation is Material else ()
    options |= {name: options[name].replace(default=inspect.Parameter.empty) for name in needed}

    @wraps(command)
    def call(**given: Any) -> None:
        check_writable(given["out"])
        made = _options(**{name: given.pop(name) for name in options})
        command(**given, material=made)

    every = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own.values(), *options.values())]
    call.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    return call


def erase_model(erase: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (execute, batch, replay, verify):
        erase.command()(on_material(command))


def execute(
    id: Id,
    model: ModelName,
    out: RunFolder,
    material: Material,
    recipe: RecipeName = "",
    base: Annotated[
        str, typer.Option("--base", help="To train again: the model from before all of the training data.")
    ] = "",
    training: Annotated[
        str, typer.Option("--training", help="With --base, how to train, as YAML: '{epochs: 3, rows: 8, lr: 5e-5}'.")
    ] = "{}",
    retrained: Retrained = "",
    sisa: Annotated[
        Path | None,
        typer.Option("--sisa", help="The folder of a SISA ensemble; --model is then the model from before all data."),
    ] = None,
    another: Another = False,
    device: Device = "cpu",
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Edit the model on the person's records, or train it again without. Exit status 1 if it was rolled back."""
    if bool(recipe) + bool(base) + bool(retrained) + bool(sisa) > 1:
        raise UserError("give one of --recipe, --base, --retrained and --sisa: an edit, or how it is trained again.")
    chosen = Recipe.load(recipe) if recipe else None
    how = retraining.check_training(read_record(Training, read_yaml(training, "--training"), "--training"))
    with Register(register, keys=keys) as opened, Bars() as bars:
        current = load(model, device=device)
        if sisa:
            return _report_shards(
                id, sharding.retrain_shards(opened, id, current, sisa, material, out, progress=bars), out
            )
        if base:
            start = Restart(load(base, device=device), how)
            made = retraining.retrain(opened, id, current, start, material, out, another=another, progress=bars)
        elif retrained:
            other = load(retrained, device=device)
            made = retraining.accept(opened, id, current, other, material, another=another)
        else:
            made = execution.execute(opened, id, current, material, out, chosen, another=another, progress=bars)
    kept = retrained or out / (retraining.FOLDER if base else "edit.safetensors")
    _report(made, f"{kept}: what the model became. Next: loka erase verify {id} --out {out} ...")


def batch(
    model: ModelName,
    out: RunFolder,
    material: Material,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Requests; by default those that are due.")
    ] = None,
    within: Annotated[int, typer.Option("--within", help="Without IDs: due within so many days.")] = SOON,
    recipe: RecipeName = "",
    another: Another = False,
    device: Device = "cpu",
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Execute requests that are due together as one edit. Exit status 1 if it was rolled back, for all of them."""
    chosen = Recipe.load(recipe) if recipe else None
    with Register(register, keys=keys) as opened, Bars() as bars:
        wanted = list(dict.fromkeys(ids)) if ids else due(opened, within=within, out=out)
        made = execution.execute(
            opened, wanted, load(model, device=device), material, out, chosen, another=another, progress=bars
        )
    for id, (before, after) in made.shown.items():
        say(f"{id}: the model knew {before.known} of {before.records} records, and knows {after.known} now.")
    _report(made, f"{out / 'edit.safetensors'}: the edit. Next, for each: loka erase verify ID --out {out} ...")


def replay(
    id: Id,
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", help="A new folder for the edited model, or for the run.")],
    material: Material | None,
    device: Device = "cpu",
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Apply the edit again to a restored model, or make it anew by the same recipe on another base."""
    with Register(register, keys=keys) as opened, Bars() as bars:
        made = replays.replay(opened, id, load(model, device=device), out, material, progress=bars)
    if isinstance(made, Execution):
        return _report(made, f"{out / 'edit.safetensors'}: the edit, made anew for {model}.")
    say(f"{out}: the model with the edit of {' and '.join(made.requests)}.")


def verify(
    id: Id,
    model: ModelName,
    out: RunFolder,
    material: Material,
    profile: Annotated[str, typer.Option("--profile", help="quick, standard or full.")] = "quick",
    retrained: Retrained = "",
    device: Device = "cpu",
    register: Folder = None,
    keys: Keys = None,
) -> None:
    """Audit the erasure, and ask earlier ones again. Exit status 1 if one of these came back."""
    wanted = cast(Profile, profile)
    effort(wanted)
    with Register(register, keys=keys) as opened, Bars() as bars:
        current, other = load(model, device=device), load(retrained, device=device) if retrained else None
        found = verification.verify(opened, id, current, material, out, retrained=other, profile=wanted, progress=bars)
    say(f"{id}: {found.verdict.outcome}. {found.plain}")
    say(f"Report: {found.folder / 'report.html'}")
    if found.undone:
        raise typer.Exit(1)


def _numbers(ids: str, made: Execution) -> None:
    before, after = made.before, made.after
    say(f"{ids}: the {'edit' if made.edit else 'training'} is about {made.records} records.")
    say(
        f"{ids}: accuracy on records to keep {before.retain:.1%} before, {after.retain:.1%} after; "
        f"perplexity of neutral text {before.perplexity:.2f} before, {after.perplexity:.2f} after."
    )
    for each in made.earlier:
        say(each.words)


def _report(made: Execution, kept: str) -> None:
    ids = " and ".join(made.shown)
    _numbers(ids, made)
    if made.kept:
        return say(kept)
    what = "edit" if made.edit else "training"
    say(f"{ids}: the {what} was rolled back: {'; '.join(made.broken)}. Choose another recipe or method.")
    raise typer.Exit(1)


def _report_shards(id: str, made: Sharded, out: Path) -> None:
    for member in made.members:
        if member.made:
            _numbers(f"{id}, shard {member.shard}", member.made)
        else:
            say(f"{id}, shard {member.shard}: the model knew none of the records, so nothing was measured.")
    if made.broken:
        say(f"{id}: the training was rolled back: {'; '.join(made.broken)}. Choose another method.")
        raise typer.Exit(1)
    say(f"{out / 'sisa'}: the ensemble without {made.deleted} records. Next, for each of the shards above:")
    say(f"loka erase verify {id} --model {out}/shard-N/before --out {out}/shard-N ...")


def _parameters(command: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a command, with annotations that typer can read."""
    hints = get_type_hints(command, include_extras=True)
    return {n: p.replace(annotation=hints[n]) for n, p in inspect.signature(command).parameters.items()}
