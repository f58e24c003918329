"""The erasures that the trail records: which model each led from, and to which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import JsonValue

from .._util.errors import UserError
from .register import Register

CHANGES = ("executed", "replayed", "expired")  # the kinds of entries that tell of changed models


@dataclass(frozen=True)
class Erasure:
    """A change of a model for one request, or for several that were executed as one.

    Attributes:
        requests: their ids; none after they were deleted from the register.
        model: SHA-256 of the model that was changed.
        result: SHA-256 of the model after it.
        edit: SHA-256 of the edit's file; empty for a model that was trained again.
        recipe: that of the edit as JSON, where the trail still has it.
    """

    requests: tuple[str, ...]
    model: str
    result: str
    edit: str = ""
    recipe: JsonValue = None

    @property
    def words(self) -> str:
        """Whose erasure it is, for a sentence."""
        return " and ".join(self.requests) or "requests that were deleted from the register"


def erasures(register: Register) -> list[Erasure]:
    """All erasures that the trail records, oldest first. Those of one batch are one."""
    found: dict[tuple[str, str], Erasure] = {}
    for entry in register.entries():
        if entry.kind in CHANGES and (said := entry.said):
            for made in _read(said.request, said.payload):
                known = found.get((made.model, made.result))
                both = tuple(dict.fromkeys([*(known.requests if known else ()), *made.requests]))
                found[made.model, made.result] = replace(known or made, requests=both)
    return list(found.values())


def executed(register: Register, id: str) -> Erasure:
    """The erasure that a request was executed with.

    Raises:
        UserError: it was never executed.
    """
    request, payloads = register.request(id), register.payloads(id, kind="executed")
    if not payloads:
        raise UserError(f"{id} is {request.status} and was not executed; give `loka erase execute {id} ...` first.")
    first = _read(id, payloads[-1])[0]
    return next(each for each in erasures(register) if (each.model, each.result) == (first.model, first.result))


def without_requests(register: Register, ids: Iterable[str]) -> list[JsonValue]:
    """The erasures of requests that are about to be deleted, without them: what the models still need to know."""
    gone = set(ids)
    return [
        {"model": e.model, "result": e.result, "edit": e.edit} for e in erasures(register) if gone & set(e.requests)
    ]


def _read(request: str, payload: Mapping[str, Any]) -> list[Erasure]:
    """The erasures that one entry tells of: of its request, of each model of an ensemble, or of deleted requests."""
    rows: Any = payload.get("members", [payload]) if request else payload.get("erasures", [])
    return [
        Erasure(
            (request,) if request else (), row["model"], row["result"], row.get("edit", ""),
            row.get("recipe") or None,
        )
        for row in rows if row.get("result")
    ]  # fmt: skip
