"""What happens to a request in the register. Each step is one transaction with one entry of the trail."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

from .._util.errors import UserError
from .database import FILE
from .deadline import check_extension, deadline
from .free_text import check_text
from .person import Person
from .record import Decision, Extension, Identity, Request
from .register import Register, default_register
from .request import read_request


def register_for(path: Path, folder: Path | None = None, keys: Path | None = None) -> Register:
    """Open the register for a request file. Where there is none, make one, but not for a file with faults.

    Raises:
        UserError: as `Register`, and for a file with faults where there is no register.
    """
    if not (Path(folder or default_register()) / FILE).exists():
        read_request(path, today=date.today())
    return Register(folder, keys=keys, create=True)


def receive(register: Register, path: Path, *, today: date | None = None) -> Request:
    """Log the request of a file, encrypt its person, and set the deadline.

    Raises:
        UserError: faults of the file, all at once; among them an open request of the same person.
    """
    with register.change() as change:
        intake = read_request(path, today=today or date.today(), known=lambda who: _open_already(register, who))
        due = deadline(intake.received, intake.country)
        request = Request(
            id=change.new_id(intake.received),
            pseudonym=change.pseudonym_of(intake.person),
            received=intake.received,
            time=intake.time,
            channel=intake.channel,
            ground=intake.ground,
            country=intake.country,
            identity=intake.identity,
            first_due=due,
            due=due,
            notes=intake.notes,
        )
        said = {"pseudonym": request.pseudonym, "received": str(request.received), "due": str(due)}
        said |= {"channel": request.channel, "ground": request.ground}
        said |= {"identity": str(intake.identity.on)} if intake.identity else {}
        change.save(request, "received", said, person=intake.person)
    return request


def identify(register: Register, id: str, how: str, *, on: date | None = None, today: date | None = None) -> Request:
    """Note when and how the person's identity was verified, for a request that was logged without it.

    Raises:
        UserError: it is verified already, the request has ended, or the day is in the future or before receipt.
    """
    day = today or date.today()
    when = on or day
    with register.change() as change:
        request = _open_request(register, id)
        if request.identity:
            raise UserError(f"the identity of {id} was verified on {request.identity.on} already; nothing was changed.")
        if not request.received <= when <= day:
            raise UserError(f"{when} is not between receipt, {request.received}, and today, {day}; correct --on.")
        identity = Identity(when, check_text(how, register.held_person(id), "--how"))
        return change.save(replace(request, identity=identity), "identified", {"on": str(when)})


def extend(register: Register, id: str, months: int, reason: str, *, today: date | None = None) -> Request:
    """Extend the deadline by one or two further months, counted from receipt.

    Raises:
        UserError: a second extension, after the first month, without a reason, or of a request that has ended.
    """
    day = today or date.today()
    with register.change() as change:
        request = _open_request(register, id)
        if request.extension:
            raise UserError(f"{id} was extended on {request.extension.on} to {request.due}; that is allowed only once.")
        check_extension(months, request.first_due, day)
        extension = Extension(months, day, check_text(reason, register.held_person(id), "--reason"))
        due = deadline(request.received, request.country, months=months)
        later = replace(request, extension=extension, due=due)
        return change.save(later, "extended", {"months": months, "due": str(due)})


def refuse(register: Register, id: str, reason: str, *, today: date | None = None) -> Request:
    """Refuse a request, with the reason under Art. 17(3) or Art. 12(5).

    Raises:
        UserError: it was executed or has ended, or there is no reason.
    """
    with register.change() as change:
        request = _open_request(register, id)
        if not request.needs_person:
            raise UserError(f"{id} is {request.status} and cannot be refused any more; close it.")
        decision = _decision(register, id, reason, today)
        refused = replace(request, status="refused", refusal=decision)
        return change.save(refused, "refused", {"on": str(decision.on)})


def close(register: Register, id: str, reason: str, *, today: date | None = None) -> Request:
    """Close a request, and delete its person from the register.

    Raises:
        UserError: it is closed already, or there is no reason.
    """
    with register.change() as change:
        request = register.request(id)
        if request.status == "closed":
            raise UserError(f"{id} is closed since {request.ended}; nothing was changed.")
        decision = _decision(register, id, reason, today)
        change.delete_person(id)
        said = {"on": str(decision.on), "from": request.status}
        closed = change.save(replace(request, status="closed", closing=decision), "closed", said)
    register.database.wipe()
    return closed


def _open_request(register: Register, id: str) -> Request:
    request = register.request(id)
    if not request.state.open:
        raise UserError(f"{id} is {request.status} since {request.ended}; only open requests can be changed.")
    return request


def _decision(register: Register, id: str, reason: str, today: date | None) -> Decision:
    return Decision(today or date.today(), check_text(reason, register.held_person(id), "--reason"))


def _open_already(register: Register, person: Person) -> str | None:
    same = [request for request in register.requests_of(person) if request.state.open]
    if not same:
        return None
    return f"the request {same[-1].id} of {same[-1].received} by this person is still open; continue with that one"
