"""Keyed digests of a person's name and identifiers, which tell whether two requests are of one person."""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Iterator

from .._util.errors import UserError
from .keys import NEXT, Keyring, Mac
from .person import Person

NAME, IDENTIFIER = "name", "identifier"


def marks(person: Person, keyring: Keyring) -> list[tuple[str, Mac]]:
    """The kind and the HMAC, under the key in use, of the name and of each identifier."""
    return sorted({(kind, keyring.mac(text)) for kind, text in _texts(person)}, key=lambda m: (m[0], m[1].digest))


def normal(text: str) -> str:
    r"""A text without differences of case, width and spaces.

    >>> normal("  Erika\tMUSTERMANN ")
    'erika mustermann'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def same_person(db: sqlite3.Connection, keyring: Keyring, person: Person) -> list[str]:
    """The ids of the requests of this person, by their marks under any key.

    Requests that share an identifier are of one person. Requests with one name are of one person, unless both have
    identifiers and share none.

    Raises:
        UserError: the register has marks under a key that is missing.
    """
    _check_keys(db, keyring)
    found: dict[str, set[str]] = {}
    for kind, text in _texts(person):
        for mac in keyring.macs(text):
            rows = db.execute("SELECT request FROM mark WHERE kind = ? AND digest = ?", (kind, mac.digest))
            for (id,) in rows:
                found.setdefault(id, set()).add(kind)
    others = {id for (id,) in db.execute("SELECT request FROM mark WHERE kind = ?", (IDENTIFIER,))}
    return sorted(id for id, kinds in found.items() if IDENTIFIER in kinds or not (person.identifiers and id in others))


def _texts(person: Person) -> Iterator[tuple[str, str]]:
    yield NAME, f"{NAME}:{normal(person.name)}"
    for identifier in person.identifiers:
        yield IDENTIFIER, f"{IDENTIFIER}:{normal(identifier)}"


def _check_keys(db: sqlite3.Connection, keyring: Keyring) -> None:
    used = {key for (key,) in db.execute("SELECT DISTINCT key FROM mark")}
    if missing := used - {key.id for key in keyring.identifiers}:
        raise UserError(
            f"the key {min(missing)} of identifiers is missing from {str(keyring.folder)!r}, so that nobody can tell "
            f"whether two requests are of one person; {NEXT}."
        )
