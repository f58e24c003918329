"""Verification: the audit of a request's edit, and its verdict for people who know nothing of models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from .._util.errors import UserError
from .._util.files import digest
from ..audit.auditor import Progress
from ..audit.profiles import Profile
from ..model import Model
from ..pipeline.run import Run
from ..verify import Verdict
from .assessment import impact_of
from .execution import executed_edit
from .material import Material, whole_case
from .plain_words import PLAIN_OUTCOMES
from .register import Register

STATUSES = ("executed", "verified")


@dataclass(frozen=True)
class Verification:
    """The verdict of an audit, and one sentence on it for a layperson."""

    verdict: Verdict
    plain: str


def verify(
    register: Register,
    id: str,
    model: Model,
    material: Material,
    out: Path,
    *,
    profile: Profile = "quick",
    progress: Progress | None = None,
) -> Verification:
    """Audit the edit of a request in its run folder, and log the outcome. Readings in the folder are not made again.

    Args:
        model: the model before the edit.
        out: the run folder of `execute`.

    Raises:
        UserError: the request was not executed or has ended, the model or the edit changed since, or as `whole_case`.
    """
    known, request = executed_edit(register, id), register.request(id)
    if request.status not in STATUSES:
        raise UserError(f"{id} is {request.status}; only executed requests can be verified.")
    if (now := model.digest()) != known.model:
        raise UserError(
            f"{model.name} is not the model that {id} was executed on (SHA-256 {now[:12]}, not {known.model[:12]}); "
            f"give that model, or make the edit anew by `loka erase replay {id}`."
        )
    known.load(out / "edit.safetensors")
    case = whole_case(id, impact_of(register, id), material, model)
    run = Run(out, model=model, case=case, recipe=known.recipe, profile=profile, progress=progress, redact=True)
    verdict = run.verdict()
    run.report()
    with register.change() as change:
        request = register.request(id)
        said = {"outcome": verdict.outcome, "profile": profile, "verdict": digest(out / "verdict.json")}
        change.save(replace(request, status="verified"), "verified", {**said, "edit": known.edit})
    return Verification(verdict, PLAIN_OUTCOMES[verdict.outcome].found)
