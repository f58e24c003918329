"""A request file: read and checked as a whole, so that all its faults are named at once."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from .._util.errors import UserError
from .._util.yaml_text import read_yaml
from .deadline import check_country
from .free_text import NAMES, names_person
from .person import Person
from .record import Identity
from .terms import CHANNELS, GROUNDS, Term, find_term, listed

APPLIES = date(2018, 5, 25)  # the day from which the GDPR applies
LARGEST = 2**20  # bytes of a request file
DAY = "a day as YYYY-MM-DD, such as 2026-11-03"
LACKS = {
    "received": f"it is missing; give the day of receipt, {DAY}, or a time as 2026-11-03 14:05",
    "channel": f"it is missing; choose from {listed(CHANNELS)}",
    "ground": f"it is missing; choose the ground under Art. 17(1) from {listed(GROUNDS)}",
    "person": "it is missing; give name, and where known variants and identifiers",
    "person.name": "it is missing; give the person's full name",
    "identity.verified": f"it is missing; give the day on which the identity was verified, {DAY}",
    "identity.how": "it is missing; say how the identity was verified",
}


@dataclass(frozen=True)
class Intake:
    """What a request file says. The person is apart, because it is encrypted."""

    received: date
    time: str
    channel: str
    ground: str
    country: str
    identity: Identity | None
    notes: str
    person: Person


def read_request(path: Path, *, today: date, known: Callable[[Person], str | None] = lambda _: None) -> Intake:
    """Read a request file.

    Args:
        today: nothing may have happened after it.
        known: says what is wrong with a request of this person, such as that there is one already.

    Raises:
        UserError: a file that cannot be read, or one sentence for each of its faults.
    """
    data = _read(path)
    faults: list[str] = []
    try:
        file = RequestFile.model_validate(data, context={"today": today})
    except ValidationError as error:
        file, faults = None, [_described(one) for one in error.errors()]
    if (person := _person(data)) and (fault := known(person)):
        faults.append(f"person: {fault}")
    if file and file.identity and file.identity.verified < file.received[0]:
        faults.append(f"identity.verified: {file.identity.verified} is before receipt; correct one of the two days")
    faults += [f"{field}: {NAMES}" for field, text in _texts_in_clear(file) if person and names_person(text, person)]
    if file is None or person is None or faults:
        raise UserError(_listed(path, list(dict.fromkeys(faults))))
    day, time = file.received
    identity = Identity(file.identity.verified, file.identity.how) if file.identity else None
    return Intake(day, time, file.channel, file.ground, file.country, identity, file.notes, person)


def _texts_in_clear(file: RequestFile | None) -> list[tuple[str, str]]:
    if file is None:
        return []
    return [("notes", file.notes), *([("identity.how", file.identity.how)] if file.identity else [])]


def _read(path: Path) -> object:
    """The value of the file; the only place that knows which reader of YAML is used."""
    try:
        if os.path.getsize(path) > LARGEST:
            raise UserError(f"the request file {str(path)!r} holds more than {LARGEST:,} bytes; give one request.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the request file {str(path)!r} cannot be read ({error}); give a YAML file.") from error
    data = read_yaml(text, f"the request file {str(path)!r}")
    if not isinstance(data, Mapping):
        raise UserError(f"the request file {str(path)!r} must map names to values, such as received: 2026-11-03.")
    return data


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("it is not text; put it in quotes, as '0042'")
    if not value.strip():
        raise ValueError("it is empty; give a text")
    return " ".join(value.split())


def _texts(value: object) -> list[str]:
    return [_text(one) for one in (value if isinstance(value, list) else [value])]


def _notes(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("it is not text; put it in quotes")
    return value.strip()


def _moment(value: object, info: Any) -> tuple[date, str]:
    """A day, and the time of it where one is given, in the local zone unless it has an offset."""
    if isinstance(value, str):
        try:
            text = value.strip()
            value = datetime.fromisoformat(text) if len(text) > len("2026-11-03") else date.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{value!r} is not {DAY}, or a time as 2026-11-03 14:05") from None
    if isinstance(value, datetime):
        moment = value.astimezone() if value.tzinfo is None else value
        day = _day(moment.date(), info)
        if moment > datetime.now().astimezone():
            raise ValueError(f"{value} is in the future; give the time of receipt")
        return day, moment.timetz().isoformat(timespec="minutes")
    return _day(value, info), ""


def _day(value: object, info: Any) -> date:
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"{value!r} is not {DAY}") from None
    if not isinstance(value, date) or isinstance(value, datetime):
        raise ValueError(f"{value!r} is not {DAY}")
    if value > info.context["today"]:
        raise ValueError(f"{value} is in the future; give a day up to today, {info.context['today']}")
    if value < APPLIES:
        raise ValueError(f"{value} is before the GDPR applied ({APPLIES}); correct the day")
    return value


def _term(terms: tuple[Term, ...]) -> Callable[[object], str]:
    def find(value: object) -> str:
        name = find_term(str(value), terms)
        if name is None:
            raise ValueError(f"{reprlib.repr(value)} is unknown; choose from {listed(terms)}")
        return name

    return find


def _country(value: object) -> str:
    try:
        return check_country("NO" if value is False else str(value))  # YAML reads Norway's code as false
    except UserError as error:
        raise ValueError(str(error).removesuffix(".")) from error


Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[list[str], BeforeValidator(_texts)]
Day = Annotated[date, BeforeValidator(_day)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PersonPart(_Part):
    """The person in a request file."""

    name: Text
    variants: Texts = []
    identifiers: Texts = []


class IdentityPart(_Part):
    """When and how the identity was verified."""

    verified: Day
    how: Text


class RequestFile(_Part):
    """The content of a request file."""

    received: Annotated[tuple[date, str], BeforeValidator(_moment)]
    channel: Annotated[str, BeforeValidator(_term(CHANNELS))]
    ground: Annotated[str, BeforeValidator(_term(GROUNDS))]
    person: PersonPart
    identity: IdentityPart | None = None
    country: Annotated[str, BeforeValidator(_country)] = ""
    notes: Annotated[str, BeforeValidator(_notes)] = ""


def _person(data: object) -> Person | None:
    """The person, if that part of the file is right, whatever is wrong with the others."""
    try:
        part = PersonPart.model_validate(data.get("person"))  # type: ignore[attr-defined]
    except ValidationError:
        return None
    return Person(part.name, tuple(part.variants), tuple(part.identifiers))


def _described(error: Any) -> str:
    """A fault with its place. Values of the person are not repeated, so that no log has them."""
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"{where}: {LACKS[where]}"
    if error["type"] == "extra_forbidden":
        fields = {"person": PersonPart, "identity": IdentityPart}.get(str(error["loc"][0]), RequestFile).model_fields
        return f"{where}: there is no such field; choose from {', '.join(fields)}"
    if error["type"] == "invalid_key":
        return f"{where}: the name of a field must be text; put it in quotes"
    if error["type"] == "model_type":
        return f"{where}: it must map names to values; {LACKS.get(where, 'give verified and how').partition('; ')[2]}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def _listed(path: Path, faults: list[str]) -> str:
    if len(faults) == 1:
        return f"the request file {str(path)!r} has a fault in {faults[0]}."
    lines = "".join(f"\n  - {fault}" for fault in faults)
    return f"the request file {str(path)!r} has {len(faults)} faults; nothing was logged:{lines}"
