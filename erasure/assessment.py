"""The assessment of a request: its impact, beside the register, and an entry of the trail that seals it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from pydantic import JsonValue

from .._util.errors import UserError
from .._util.files import digest, private_folder, read_json, write_json
from .impact import Impact, assess_data
from .record import Request
from .register import Register
from .trail import Entry

NEXT = "give `loka erase assess {id} --data ...` again"


def assess(register: Register, id: str, files: Iterable[str | Path], folders: Iterable[str | Path] = ()) -> Impact:
    """Search training files for a request's person, keep the impact, and log its counts and the files' digests.

    What somebody said before of hits in files that did not change is kept.

    Raises:
        UserError: the request was executed or has ended; and as `assess_data`.
    """
    assessable(register, id)
    found = assess_data(register.person(id), files, folders)
    with suppress(UserError):  # assessed for the first time, or killed between the file and its entry
        found = found.confirmed_as(impact_of(register, id))
    return keep(register, id, found, "assessed")


def confirm(register: Register, id: str, decisions: Mapping[int, bool]) -> Impact:
    """Note what somebody said of hits, by their number from 1: whether the record is the person's.

    Raises:
        UserError: no such hit, no assessment, or the request was executed or has ended.
    """
    assessable(register, id)
    found = impact_of(register, id)
    if unknown := sorted(n for n in decisions if not 1 <= n <= len(found.hits)):
        raise UserError(f"{id} has no hit {unknown[0]}; its hits are numbered from 1 to {len(found.hits)}.")
    said = {(found.hits[n - 1].file, found.hits[n - 1].row): yes for n, yes in decisions.items()}
    return keep(register, id, found.confirm(said), "confirmed")


def impact_of(register: Register, id: str) -> Impact:
    """The impact of a request, as the last assessment or confirmation left it.

    Raises:
        UserError: it was never assessed, or the file is missing or was changed.
    """
    request = register.request(id)
    path, advice = path_of(register, id), NEXT.format(id=id)
    sealed = last_said(register.entries(), request, "impact")
    if sealed is None:
        raise UserError(f"{id} was not assessed yet; give `loka erase assess {id} --data ...` first.")
    if not path.exists() or digest(path) != sealed:
        raise UserError(f"{str(path)!r} is missing or is not as the trail records it; {advice}.")
    return Impact.from_json(read_json(path, advice), f"the impact {str(path)!r}")


def path_of(register: Register, id: str) -> Path:
    """Where the impact of a request is kept."""
    return files_of(register, id) / "impact.json"


def files_of(register: Register, id: str) -> Path:
    """The folder of a request's own files, beside the register. They hold no text of a record and no name."""
    return register.folder / id


def last_said(entries: Iterable[Entry], request: Request, what: str) -> JsonValue:
    """What the last entry about a request that has this key says under it; `None` if none has."""
    told = [entry.said.payload for entry in entries if entry.said and entry.said.request == request.id]
    return next((payload[what] for payload in reversed(told) if what in payload), None)


def keep(
    register: Register, id: str, impact: Impact, kind: str, *, said: Mapping[str, JsonValue] = MappingProxyType({})
) -> Impact:
    """Keep an impact beside the register, and seal it by an entry of this kind with its counts and what else is said.

    Raises:
        UserError: the request was executed or has ended.
    """
    path = path_of(register, id)
    with register.change() as change:
        request = assessable(register, id)
        private_folder(path.parent)
        write_json(path, impact.to_json(), private=True)
        status = "assessed" if request.status == "received" else request.status  # a method that is chosen stays so
        change.save(replace(request, status=status), kind, {**_counts(impact), **said, "impact": digest(path)})
    return impact


def _counts(impact: Impact) -> dict[str, JsonValue]:
    """What the trail says of an impact."""
    found, total = impact.found(), impact.total
    return {
        "records": found.records, "of_records": total.records, impact.unit: found.tokens,
        f"of_{impact.unit}": total.tokens, "hits": dict(impact.by_rule()),
        "rejected": sum(hit.confirmed is False for hit in impact.hits), "artefacts": len(impact.artefacts),
        "files": [file.digest for file in impact.files],
    }  # fmt: skip


def assessable(register: Register, id: str) -> Request:
    """The request, if it can still be assessed.

    Raises:
        UserError: it was executed or has ended.
    """
    request = register.request(id)
    if not request.needs_person:
        raise UserError(f"{id} is {request.status} and cannot be assessed any more; log a new request.")
    return request
