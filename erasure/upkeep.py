"""Upkeep of a register: deleting what is no longer needed, new keys, and going on from a backup."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import date

from .._util.errors import LokaError, UserError
from .assessment import files_of
from .deadline import add_months
from .erased import without_requests
from .free_text import check_text
from .register import Register
from .trail import read_anchor


@dataclass(frozen=True)
class Restore:
    """Entries that a backup lacked: the first and the last, and why. The entry `first` of today tells of them."""

    first: int
    last: int
    reason: str


def purge(register: Register, id: str = "") -> list[str]:
    """Delete the encrypted person of a request, or of all requests that no longer need it; returns their ids.

    The keyed digests of the identifiers stay, so that a later request of the same person is known.

    Raises:
        UserError: the request named still needs it.
    """
    with register.change() as change:
        chosen = [register.request(id)] if id else register.requests()
        if id and chosen[0].needs_person:
            raise UserError(f"{id} is {chosen[0].status} and needs its person; execute, refuse or close it first.")
        gone = [r.id for r in chosen if not r.needs_person and register.held_person(r.id)]
        for each in gone:
            change.delete_person(each)
            change.log("purged", {}, each)
    register.database.wipe()
    return gone


def expire(register: Register, years: int, *, today: date | None = None) -> list[str]:
    """Delete all of the requests that ended more than so many years ago, with what the trail says of them.

    The trail can still be verified: of each entry, its digest and signature stay. So do edits, with the digests of the
    models that they lead from and to, because models that are in use lack or have them.

    Raises:
        UserError: fewer years than one.
        LokaError: the trail was touched, and what shows it must not be deleted.
    """
    if years < 1:
        raise UserError(f"requests cannot be kept for {years} years; give --keep-years 1 or more.")
    if fault := register.verify():
        raise LokaError(f"nothing was deleted, because the trail was touched: {fault}; restore it from a backup.")
    limit = add_months(today or date.today(), -12 * years)
    with register.change() as change:
        gone = [r.id for r in register.requests() if not r.state.open and r.ended and r.ended < limit]
        if gone:
            change.delete_requests(gone, {"ended_before": str(limit), "erasures": without_requests(register, gone)})
    register.database.wipe()
    for id in gone:
        shutil.rmtree(files_of(register, id), ignore_errors=True)
    return gone


def rotate(register: Register) -> int:
    """Make new keys, and put every person that is held, with the digests of its identifiers, under them.

    The old keys stay: they check old entries, and know old requests whose person is deleted. Returns how many persons.
    """
    with register.change() as change:
        change.keyring = register.keyring.rotated()
        held = [(r, person) for r in register.requests() if (person := register.held_person(r.id))]
        for request, person in held:
            change.save(request, "rekeyed", {}, person=person)
        keys = {"identifiers": change.keyring.identifiers[-1].id, "values": change.keyring.values[-1].id}
        change.log("rotated", {"persons": len(held), **keys, "signing": change.keyring.signing[-1].id})
    register.database.wipe()
    return len(held)


def accept_restore(register: Register, reason: str) -> None:
    """Go on with a register that came back from a backup without its last entries.

    An entry tells of them from now on, with the hash of the last one. Nothing else is accepted in this way.

    Raises:
        UserError: no entry is missing at the end, or there is no reason.
    """
    for person in [None, *(register.held_person(request.id) for request in register.requests())]:
        check_text(reason, person, "--restored")
    with register.change(check=False) as change:
        known = read_anchor(register.keys_folder, register.id)
        first, last = change.head.count + 1, known.count
        if last < first:
            raise UserError("no entry is missing at the end of the trail; `loka erase audit` says what is wrong.")
        change.log("restored", {"first": first, "last": last, "hash": known.hash, "reason": reason.strip()})


def restores(register: Register) -> list[Restore]:
    """What the trail records of entries that a backup lacked."""
    payloads = register.payloads(kind="restored")
    return [Restore(int(str(p["first"])), int(str(p["last"])), str(p["reason"])) for p in payloads]
