"""Replay: the edits of erasures once more, on a model that came back from a backup, or anew on another base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from .._util.errors import UserError
from .._util.files import check_writable
from ..audit.auditor import Progress
from ..model import Model, export
from ..pipeline.recipe import Recipe
from .erased import executed
from .execution import check_folder, edit, edit_plan
from .job import Job
from .lineage import Lineage, keep_edit, lineage, with_edits
from .material import Material
from .outcome import Execution, announce
from .register import Register


@dataclass(frozen=True)
class Restored:
    """A model that was written with the edits of these requests in place."""

    requests: tuple[str, ...]


def replay(
    register: Register,
    id: str,
    model: Model,
    out: Path,
    material: Material | None = None,
    *,
    progress: Progress | None = None,
) -> Execution | Restored:
    """Apply the edit of an executed request again, or make it anew for another base.

    A model that the edit was made for, such as one restored from a backup, gets this edit and all others that it lacks,
    and is written to `out`. On any other, the frozen recipe makes a new edit in the run folder `out`, on top of edits
    that were made anew before, under the same safeguards.

    Raises:
        UserError: the request was never executed, an edit is missing or was changed, or another base without its
            training data, or one whose erasure was a training.
    """
    known, line = executed(register, id), lineage(register, model.digest())
    if id in line.requests:
        return _restore(register, id, model, line, out)
    if known.recipe is None:
        raise UserError(
            f"{id} was executed by training again, so there is no edit to make anew; train the other base on data "
            "without the records (`loka erase exclude`)."
        )
    if material is None:
        raise UserError(
            f"this is not the model that {id} was executed on, so the edit must be made anew; give its training data "
            "by --data and never-taught records by --holdout."
        )
    check_writable(out)
    job = Job.of(register, known.requests, model, material)
    recipe = Recipe.from_json(known.recipe).on(job.case)
    check_folder(out, job.case, recipe)
    plan = edit_plan(job.model, recipe)
    announce(register, job.ids, plan | {"anew": True})
    made = edit(register, job, recipe, out, progress)
    _log(register, made, {"model": plan["model"], "recipe": plan["recipe"], "anew": True}, out)
    return made


def _restore(register: Register, id: str, model: Model, line: Lineage, out: Path) -> Restored:
    """Write the model with all edits that it lacks."""
    whole = with_edits(register, model, line.missing)
    export(whole, out)
    said: dict[str, JsonValue] = {"from": line.model, "to": whole.digest(), "requests": list(line.requests)}
    with register.change() as change:
        change.log("replayed", said | {"anew": False}, id)
    return Restored(line.requests)


def _log(register: Register, made: Execution, about: dict[str, JsonValue], out: Path) -> None:
    """Log an edit that was made anew, and keep a copy of it; or log that it was rolled back."""
    with register.change() as change:
        if made.kept:
            keep_edit(register, out / "edit.safetensors")
            about = about | {"edit": made.edit, "result": made.result}
        for each in made.shown:
            change.log("replayed" if made.kept else "rolled back", {**made.to_json(each), **about}, each)
