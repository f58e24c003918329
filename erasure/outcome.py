"""What an execution made of a model, whether it is kept, and what the trail says of it before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from .._util.errors import UserError
from ..model import Model
from .assessment import impact_of
from .earlier import Recheck
from .job import Job
from .lineage import keep_edit, lineage
from .record import Request
from .register import Register
from .safeguards import Utility, broken_safeguards
from .shown import Shown

READY = ("assessed", "chosen")


@dataclass(frozen=True)
class Execution:
    """A changed model, and what the change did to the rest of it.

    Attributes:
        known: how many of the records the model knew, so that an edit is about them; `records`: of how many.
        edit: SHA-256 of its file; empty for a model that was trained again.
        result: SHA-256 of the changed model.
        broken: the safeguards that it broke, in words; empty if it was kept.
        shown: by request, what the model showed of the records before and after.
        earlier: how the erasures fare that were executed before.
    """

    known: int
    records: int
    edit: str
    result: str
    before: Utility
    after: Utility
    broken: tuple[str, ...]
    shown: Mapping[str, tuple[Shown, Shown]]
    earlier: tuple[Recheck, ...] = ()

    @classmethod
    def of(cls, register: Register, job: Job, changed: Model, edit: str = "") -> Execution:
        """Measure what a change did to a model."""
        before, after, earlier = job.before, job.state(changed), tuple(job.earlier.ask(register, changed))
        return cls(
            job.case.facts_known, job.case.facts_total, edit, changed.digest(), before.utility, after.utility,
            tuple(broken_safeguards(before.utility, after.utility, earlier)),
            {id: (before.shown[id], after.shown[id]) for id in job.ids}, earlier,
        )  # fmt: skip

    @property
    def kept(self) -> bool:
        """Whether the change was kept; else it was rolled back."""
        return not self.broken

    def to_json(self, id: str) -> dict[str, JsonValue]:
        """What the trail says of it, for one of its requests. Infinite and missing numbers are words."""
        plain: dict[str, JsonValue] = {
            when: {name: round(v, 6) if abs(v) < 1e12 else str(v) for name, v in asdict(of).items()}
            for when, of in (("before", self.before), ("after", self.after))
        }
        before, after = self.shown[id]
        alone = len(self.shown) == 1
        return {
            **plain, "known": self.known if alone else before.known,
            "of_records": self.records if alone else before.records, "broken": list(self.broken),
            "shown": {"before": before.to_json(), "after": after.to_json()},
            "earlier": {each.request: each.to_json() for each in self.earlier},
            **({} if alone else {"batch": list(self.shown)}),
        }  # fmt: skip


def ready(request: Request, methods: Sequence[str], advice: str = "choose another") -> Request:
    """The request, if it can be executed by one of these methods.

    Raises:
        UserError: not assessed, executed already or ended; or another method was chosen.
    """
    if request.status not in READY:
        next_ = "assess it first" if request.status == "received" else "nothing was changed"
        raise UserError(f"{request.id} is {request.status} and cannot be executed; {next_}.")
    if request.method and request.method not in methods:
        raise UserError(f"the method of {request.id} is {request.method!r}; {advice}.")
    return request


def announce(register: Register, ids: Sequence[str], plan: Mapping[str, JsonValue]) -> None:
    """Log what will be done for each request, once, however often a killed execution is begun again."""
    batch: dict[str, JsonValue] = {"batch": list(ids)} if len(ids) > 1 else {}
    with register.change() as change:
        for id in ids:
            impact = impact_of(register, id)
            files: list[JsonValue] = [file.digest for file in impact.files]
            said = {**plan, **batch, "files": files, "records": impact.found().records}
            if register.payloads(id)[-1:] != [said]:
                change.log("executing", said, id)


def finish(
    register: Register, made: Execution, about: Mapping[str, JsonValue], methods: Sequence[str], path: Path | None
) -> None:
    """Log what was made, for each request, and keep a copy of the edit; or log that it was rolled back.

    Args:
        about: what else the trail says, with the `model` that was changed.
        methods: those of the requests; the first is that of requests for which none was chosen.
        path: the file of the edit.

    Raises:
        UserError: another request was executed on the same model meanwhile.
    """
    with register.change() as change:
        if not made.kept:
            for id in made.shown:
                change.log("rolled back", {**made.to_json(id), **about}, id)
            return
        if others := lineage(register, str(about["model"])).missing:
            raise UserError(
                f"{others[0].words} was executed on this model meanwhile; give the command again with another --out, "
                "so that it works on top of that."
            )
        if path is not None:
            keep_edit(register, path)
        for id in made.shown:
            request = ready(register.request(id), methods)
            said = {**made.to_json(id), **about, "edit": made.edit, "result": made.result}
            change.save(replace(request, status="executed", method=request.method or methods[0]), "executed", said)
