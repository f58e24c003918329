"""Execution: an edit of the model on a request's records, kept only if the rest of the model holds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from .._util.errors import UserError
from .._util.files import atomic, check_writable, digest, private_folder
from .._util.provenance import read_provenance
from ..audit.auditor import Progress
from ..knowledge import Case, Redactor
from ..model import Edit, Model, export
from ..pipeline.recipe import DEFAULT, Recipe
from ..pipeline.run import Run
from ..verify import collateral
from .assessment import files_of, impact_of
from .choice import ERASURE_METHODS, frozen_recipe
from .material import Material, whole_case
from .record import Request
from .register import Register

RETAIN_DROP = 0.03  # the most that the accuracy on records to keep may fall
PERPLEXITY_RISE = 0.01  # the most that the perplexity of neutral text may rise, as a share
ROUNDING = 1e-9  # so that exactly 3 points are 3 points
EDITS = tuple(name for name, method in ERASURE_METHODS.items() if method.recipe)
READY = ("assessed", "chosen")


@dataclass(frozen=True)
class Utility:
    """What the model still does: accuracy on records to keep, 0 to 1, and the perplexity of neutral text."""

    retain: float
    perplexity: float


@dataclass(frozen=True)
class Execution:
    """An edit and what it did to the rest of the model.

    Attributes:
        records: how many records of the person the edit is about.
        edit: SHA-256 of its file.
        broken: the safeguards that it broke, in words; empty if it was kept.
    """

    records: int
    edit: str
    before: Utility
    after: Utility
    broken: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether the edit was kept; else it was rolled back."""
        return not self.broken


def execute(
    register: Register,
    id: str,
    model: Model,
    material: Material,
    out: Path,
    recipe: Recipe | None = None,
    *,
    progress: Progress | None = None,
) -> Execution:
    """Edit the model on a request's records in a redacted run folder, after an entry that says what will be done.

    A killed execution goes on where it ended. The model's files are not touched: the edit is a file of its own.

    Args:
        recipe: how to edit, where no method was chosen; by default, LOKA's default recipe.

    Raises:
        UserError: a recipe beside the one that was frozen with the request; not assessed, executed already or ended, or
            a chosen method that edits nothing; a folder that was begun with another recipe; and as `whole_case`.
    """
    request = _ready(register.request(id))
    check_writable(out)
    case = _case(register, id, model, material)
    recipe = _recipe(request, recipe).on(case)
    _check_folder(out, case, recipe)
    plan = _plan(register, id, model, recipe)
    _announce(register, id, plan)
    made = _edit(id, model, case, recipe, out, progress)
    said = {**_numbers(made), "model": plan["model"], "recipe": plan["recipe"]}
    with register.change() as change:
        request = _ready(register.request(id))
        if made.kept:
            _keep_edit(register, id, out)
            executed = replace(request, status="executed", method=request.method or "located")
            change.save(executed, "executed", {**said, "edit": made.edit})
        else:
            change.log("rolled back", said, id)
    return made


def replay(
    register: Register,
    id: str,
    model: Model,
    out: Path,
    material: Material | None = None,
    *,
    progress: Progress | None = None,
) -> Execution | None:
    """Apply the edit of an executed request again, or make it anew for another base.

    On the model that was edited, such as one restored from a backup, the edited model is written to `out`, and the
    result is `None`. On any other, the frozen recipe makes a new edit in the run folder `out`, under the same
    safeguards.

    Raises:
        UserError: the request was never executed, its edit is missing or was changed, or another base without its
            training data.
    """
    known = executed_edit(register, id)
    if model.digest() == known.model:
        export(model, out, edit=known.load(files_of(register, id) / "edit.safetensors"))
        with register.change() as change:
            change.log("replayed", {"model": known.model, "edit": known.edit, "anew": False}, id)
        return None
    if material is None:
        raise UserError(
            f"this is not the model that {id} was executed on, so the edit must be made anew; give its training data "
            "by --data and never-taught records by --holdout."
        )
    case = _case(register, id, model, material)
    _check_folder(out, case, known.recipe)
    _announce(register, id, _plan(register, id, model, known.recipe) | {"anew": True})
    made = _edit(id, model, case, known.recipe, out, progress)
    with register.change() as change:
        said = {**_numbers(made), "base": model.digest(), "anew": True, "edit_anew": made.edit}
        change.log("replayed" if made.kept else "rolled back", said, id)
    return made


@dataclass(frozen=True)
class Executed:
    """What the trail tells of an executed request: SHA-256 of the model and of the edit's file, and the recipe."""

    request: str
    model: str
    edit: str
    recipe: Recipe

    def load(self, path: Path) -> Edit:
        """The edit in a file.

        Raises:
            UserError: it is missing, or it is not the one that was executed.
        """
        if not path.exists() or digest(path) != self.edit:
            raise UserError(
                f"{str(path)!r} is missing or is not the edit that {self.request} was executed with; restore it from a "
                "backup."
            )
        return Edit.load(path)


def executed_edit(register: Register, id: str) -> Executed:
    """The edit that a request was executed with.

    Raises:
        UserError: it was never executed.
    """
    request = register.request(id)
    executions = register.payloads(id, kind="executed")
    if not executions:
        raise UserError(f"{id} is {request.status} and was not executed; give `loka erase execute {id} ...` first.")
    model, edit, recipe = (executions[-1][what] for what in ("model", "edit", "recipe"))
    return Executed(id, str(model), str(edit), Recipe.from_json(recipe))


def _recipe(request: Request, given: Recipe | None) -> Recipe:
    """The recipe that was frozen with the request; without a choice, the one that was given."""
    if request.chosen is None:
        return given or Recipe.load(DEFAULT)
    if given is not None:
        raise UserError(
            f"the recipe of {request.id} was frozen by `loka erase choose`; leave out --recipe, or choose again."
        )
    found = frozen_recipe(request)
    assert found, "a method that edits has a recipe"
    return found


def _ready(request: Request) -> Request:
    if request.status not in READY:
        next_ = "assess it first" if request.status == "received" else "nothing was changed"
        raise UserError(f"{request.id} is {request.status} and cannot be executed; {next_}.")
    if request.method and request.method not in EDITS:
        raise UserError(f"the method of {request.id} is {request.method!r}, which edits nothing; choose another.")
    return request


def _case(register: Register, id: str, model: Model, material: Material) -> Case:
    """The request's case, if damage can be judged by it."""
    case = whole_case(id, impact_of(register, id), material, model)
    if len(case.retain.sealed) < 1:
        raise UserError(f"{id} has too few other records to tell damage by; give more training data.")
    return case


def _check_folder(out: Path, case: Case, recipe: Recipe) -> None:
    """Refuse a run folder that was begun with another recipe, because its edit could not be verified there."""
    stored = read_provenance(out)
    if stored and stored.recipe != json.loads(json.dumps(Redactor(case).hide(recipe.to_json()))):
        raise UserError(f"{str(out)!r} was begun with another recipe; name another --out.")


def _plan(register: Register, id: str, model: Model, recipe: Recipe) -> dict[str, JsonValue]:
    """What will be done, for the entry that is written first."""
    impact = impact_of(register, id)
    values = json.loads(json.dumps(recipe.to_json()))
    return {
        "method": recipe.method, "recipe": values, "recipe_digest": _sha(values), "model": model.digest(),
        "files": [file.digest for file in impact.files], "records": impact.found().records,
    }  # fmt: skip


def _announce(register: Register, id: str, plan: dict[str, JsonValue]) -> None:
    """Log what will be done, once, however often a killed execution is begun again."""
    with register.change() as change:
        logged = register.payloads(id)
        if not logged or logged[-1] != plan:
            change.log("executing", plan, id)


def _edit(id: str, model: Model, case: Case, recipe: Recipe, out: Path, progress: Progress | None) -> Execution:
    """Locate and edit, and measure what the edit did to the rest. An edit that breaks a safeguard is deleted."""
    run = Run(
        out, model=model, case=case, recipe=recipe, progress=progress, redact=True, command=f"loka erase execute {id}"
    )
    run.localization()
    edit, path = run.edit(), out / "edit.safetensors"
    before = _utility(model, case)
    with edit.applied(model) as edited:
        after = _utility(edited, case)
    made = Execution(case.facts_total, digest(path), before, after, tuple(broken_safeguards(before, after)))
    if not made.kept:
        path.unlink()
    return made


def _utility(model: Model, case: Case) -> Utility:
    found = collateral(model, case)
    return Utility(float(found.value or 0.0), float(found.details["perplexity"] or "nan"))  # type: ignore[arg-type]


def broken_safeguards(before: Utility, after: Utility) -> Sequence[str]:
    """The safeguards that do not hold, in words. What is not a number does not hold."""
    found = []
    if not before.retain - after.retain <= RETAIN_DROP + ROUNDING:
        found.append(
            f"the accuracy on records to keep fell from {before.retain:.1%} to {after.retain:.1%}, by more than "
            f"{100 * RETAIN_DROP:.0f} points"
        )
    if not after.perplexity <= (1 + PERPLEXITY_RISE + ROUNDING) * before.perplexity:
        found.append(
            f"the perplexity of neutral text rose from {before.perplexity:.2f} to {after.perplexity:.2f}, by more than "
            f"{PERPLEXITY_RISE:.0%}"
        )
    return found


def _numbers(made: Execution) -> dict[str, JsonValue]:
    """What the trail says of an edit's safeguards. Infinite and missing numbers are words."""
    plain = {k: {name: round(v, 6) if abs(v) < 1e12 else str(v) for name, v in asdict(of).items()}
             for k, of in (("before", made.before), ("after", made.after))}  # fmt: skip
    return {**plain, "of_records": made.records, "broken": list(made.broken)}


def _keep_edit(register: Register, id: str, out: Path) -> None:
    """Keep a copy of the edit beside the register, so that it can be applied again when the run folder is gone."""
    with atomic(private_folder(files_of(register, id)) / "edit.safetensors") as temporary:
        shutil.copyfile(out / "edit.safetensors", temporary)


def _sha(values: JsonValue) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
