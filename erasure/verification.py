"""Verification: the audit of an erasure, its verdict in plain words, and the earlier erasures, asked again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from .._util.errors import UserError
from .._util.files import digest
from ..audit.auditor import Progress
from ..audit.profiles import Profile
from ..knowledge import Redactor
from ..model import Edit, Model, load
from ..pipeline.pair import audit_pair
from ..verify import Verdict
from .earlier import BACK, ENTRIES, HOLDS, UNASKED, Earlier, Recheck, undone
from .erased import Erasure, erasures, executed
from .job import own_case
from .lineage import SHOWN, lineage, load_edit, until
from .material import Material, whole_case
from .plain_words import EARLIER_UNASKED, EARLIER_UNDONE, PLAIN_OUTCOMES
from .register import Register
from .retraining import FOLDER

STATUSES = ("executed", "verified")


@dataclass(frozen=True)
class Verification:
    """The verdict of an audit, and one sentence on it for a layperson.

    Attributes:
        folder: where the audit is.
        earlier: how the erasures fare that were executed before.
    """

    verdict: Verdict
    plain: str
    folder: Path
    earlier: tuple[Recheck, ...] = ()

    @property
    def undone(self) -> list[Recheck]:
        """The earlier erasures that came back."""
        return undone(self.earlier)


def verify(
    register: Register,
    id: str,
    model: Model,
    material: Material,
    out: Path,
    *,
    retrained: Model | None = None,
    profile: Profile = "quick",
    progress: Progress | None = None,
) -> Verification:
    """Audit the erasure of a request, ask the earlier erasures again, and log both. Readings are not made twice.

    Args:
        model: the model before the erasure, with or without the edits of earlier ones.
        out: the folder of `execute`; a request of a batch gets a folder of its own in it.
        retrained: the model after the erasure, where it was trained elsewhere.

    Raises:
        UserError: the request was not executed or has ended, a model or the edit changed since, or as `case_of`.
    """
    known, before = _model_before(register, _verifiable(register, id), model)
    after = _after(known, out, before, retrained)
    earlier = Earlier.of(register, lineage(register, known.model).present, material)
    shown = register.payloads(id, kind="executed")[-1].get("known")
    spec = own_case(register, known.requests, id, material, earlier)
    case = whole_case(spec, shown if isinstance(shown, int) else 0)
    after = Redactor(case).show_edit(after) if isinstance(after, Edit) else after
    rechecks = _ask(register, before, after, earlier)
    folder = out / id if len(known.requests) > 1 else out
    verdict = audit_pair(
        before, after, case, out=folder, profile=profile, flags=_flags(rechecks), command=f"loka erase verify {id}",
        progress=progress,
    )  # fmt: skip
    said: dict[str, JsonValue] = {
        "outcome": verdict.outcome, "profile": profile, "verdict": digest(folder / "verdict.json"),
        "edit": known.edit, "model": known.model, "earlier": {each.request: each.to_json() for each in rechecks},
    }  # fmt: skip
    _log(register, id, said, known, rechecks)
    words = [each.words for each in rechecks if each.outcome != HOLDS]
    return Verification(verdict, " ".join([PLAIN_OUTCOMES[verdict.outcome].found, *words]), folder, rechecks)


def _verifiable(register: Register, id: str) -> str:
    executed(register, id)
    if (status := register.request(id).status) not in STATUSES:
        raise UserError(f"{id} is {status}; only executed requests can be verified.")
    return id


def _model_before(register: Register, id: str, model: Model) -> tuple[Erasure, Model]:
    """The request's erasure on this model, also one that was made anew, and the model right before it."""
    known, now = executed(register, id), model.digest()
    for each in reversed([each for each in erasures(register) if id in each.requests]):
        if (before := until(register, model, each.model)) is not None:
            return each, before
    raise UserError(
        f"{model.name} is not the model that {id} was executed on (SHA-256 {now[:SHOWN]}, not {known.model[:SHOWN]}); "
        f"give that model, or make the edit anew by `loka erase replay {id}`."
    )


def _after(known: Erasure, out: Path, before: Model, retrained: Model | None) -> Edit | Model:
    """The edit in the run folder, or the model that was trained again."""
    if known.edit:
        return load_edit(known, out / "edit.safetensors")
    if retrained is None and (out / FOLDER).is_dir():
        retrained = load(str(out / FOLDER), dtype=before.dtype, device=str(before.device))
    if retrained is None or retrained.digest() != known.result:
        raise UserError(
            f"{known.words} was executed by training again, which gave the model {known.result[:SHOWN]}; give that "
            "model by --retrained, or the folder of `execute` by --out."
        )
    return retrained


def _ask(register: Register, before: Model, after: Edit | Model, earlier: Earlier) -> tuple[Recheck, ...]:
    if isinstance(after, Model):
        return tuple(earlier.ask(register, after))
    with after.applied(before) as edited:
        return tuple(earlier.ask(register, edited))


def _flags(rechecks: tuple[Recheck, ...]) -> list[str]:
    """What the verdict says of earlier erasures that do not hold; `plain_words.PLAIN_FLAGS` has the words for it."""
    names = {BACK: EARLIER_UNDONE, UNASKED: EARLIER_UNASKED}
    return [f"{names[each.outcome]}: {each.words}" for each in rechecks if each.outcome in names]


def _log(
    register: Register, id: str, said: dict[str, JsonValue], known: Erasure, rechecks: tuple[Recheck, ...]
) -> None:
    """Log the verdict, and what became of each earlier erasure, as an entry of its own request."""
    with register.change() as change:
        change.save(replace(register.request(id), status="verified"), "verified", said)
        for each in rechecks:
            if each.outcome in ENTRIES:
                change.log(ENTRIES[each.outcome], {**each.to_json(), "after": id, "model": known.result}, each.request)
