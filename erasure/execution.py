"""Execution: an edit of the model on the records of a request, or of several, kept only if the safeguards hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from .._util.errors import UserError
from .._util.files import check_writable, digest
from .._util.provenance import read_provenance
from ..audit.auditor import Progress
from ..knowledge import Case, Redactor
from ..model import Model
from ..pipeline.recipe import DEFAULT, Recipe
from ..pipeline.run import Run
from .choice import ERASURE_METHODS, frozen_recipe, recipe_digest
from .job import Job
from .lineage import check_known, lineage
from .material import Material
from .outcome import Execution, announce, finish, ready
from .record import Request
from .register import Register

EDITS = tuple(name for name, method in ERASURE_METHODS.items() if method.recipe)
ADVICE = "it edits nothing: train again by --base or --retrained, or choose another"


def execute(
    register: Register,
    id: str | Sequence[str],
    model: Model,
    material: Material,
    out: Path,
    recipe: Recipe | None = None,
    *,
    another: bool = False,
    progress: Progress | None = None,
) -> Execution:
    """Edit the model on a request's records in a redacted run folder, after an entry that says what will be done.

    The edits of earlier erasures are put in place first, and their records are asked again at the end. A killed
    execution goes on where it ended. The model's files are not touched: the edit is a file of its own.

    Args:
        id: a request; several become one edit.
        recipe: how to edit, where no method was chosen; by default, LOKA's default recipe.
        another: the model is another than those of earlier erasures, so that none of them is lost in it.

    Raises:
        UserError: a recipe beside the one that was frozen with the request; not assessed, executed already or ended, or
            a chosen method that edits nothing; a model that lacks earlier erasures; a folder that was begun with
            another recipe; and as `Job.of`.
    """
    ids = [id] if isinstance(id, str) else list(id)
    recipe = _recipe([ready(register.request(each), EDITS, ADVICE) for each in ids], recipe)
    check_writable(out)
    check_known(register, model.name, lineage(register, model.digest()), another=another)
    job = Job.of(register, ids, model, material)
    recipe = recipe.on(job.case)
    check_folder(out, job.case, recipe)
    plan = edit_plan(job.model, recipe)
    announce(register, ids, plan)
    made = edit(register, job, recipe, out, progress)
    about = {"model": plan["model"], "recipe": plan["recipe"]}
    own = _method_of(recipe)
    finish(register, made, about, [own, *(name for name in EDITS if name != own)], out / "edit.safetensors")
    return made


def _method_of(recipe: Recipe) -> str:
    """What an edit counts as where no method was chosen: one of located parts, or one that unlearns."""
    return "located" if recipe.sites else "ascent"


def edit(register: Register, job: Job, recipe: Recipe, out: Path, progress: Progress | None) -> Execution:
    """Edit, after locating where the recipe has sites, and measure what that did. A harmful edit is deleted."""
    command = f"loka erase execute {' '.join(job.ids)}"
    run = Run(out, model=job.model, case=job.case, recipe=recipe, progress=progress, redact=True, command=command)
    change, path = run.edit(), out / "edit.safetensors"
    with change.applied(job.model) as edited:
        made = Execution.of(register, job, edited, digest(path))
    if not made.kept:
        path.unlink()
    return made


def check_folder(out: Path, case: Case, recipe: Recipe) -> None:
    """Refuse a run folder that was begun with another recipe, because its edit could not be verified there."""
    stored = read_provenance(out)
    if stored and stored.recipe != json.loads(json.dumps(Redactor(case).hide(recipe.to_json()))):
        raise UserError(f"{str(out)!r} was begun with another recipe; name another --out.")


def edit_plan(model: Model, recipe: Recipe) -> dict[str, JsonValue]:
    """How a model will be edited, for the entry that is written first."""
    values = json.loads(json.dumps(recipe.to_json()))
    return {
        "method": recipe.method, "recipe": values, "recipe_digest": recipe_digest(values), "model": model.digest(),
    }  # fmt: skip


def _recipe(requests: Sequence[Request], given: Recipe | None) -> Recipe:
    """The recipe that was frozen with the requests; without a choice, the one that was given."""
    first, *others = [request for request in requests if request.chosen] or [None]
    if first is None:
        return given or Recipe.load(DEFAULT)
    if given is not None:
        raise UserError(
            f"the recipe of {first.id} was frozen by `loka erase choose`; leave out --recipe, or choose again."
        )
    found = frozen_recipe(first)
    if other := next((each for each in others if each and frozen_recipe(each) != found), None):
        raise UserError(
            f"{first.id} and {other.id} were frozen with different recipes ({first.method}, {other.method}), which "
            "cannot become one edit; name requests with one recipe, and give the command again for the others."
        )
    assert found, "a method that edits has a recipe"
    return found
