"""One change of the register: the rows of requests, and the entries that tell of it."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import date

from pydantic import JsonValue

from . import trail
from .keys import Keyring
from .marks import marks, same_person
from .person import Person
from .record import Request
from .terms import KINDS, STATUSES
from .trail import Content, Entry, Head

ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"  # no signs that look alike


class Change:
    """What may be done to a register within one transaction. `Register.change` makes it.

    Attributes:
        keyring: the keys in use.
        head: of the trail, after the entries so far.
    """

    def __init__(self, db: sqlite3.Connection, keyring: Keyring, register: str) -> None:
        self.db = db
        self.keyring = keyring
        self.register = register
        self.head = read_head(db)

    def new_id(self, received: date) -> str:
        """The id of the next request. No id is given twice, even after its request is deleted."""
        earlier = self.db.execute("SELECT count(*) FROM trail WHERE kind = 'received'").fetchone()[0]
        return f"ER-{received.year}-{earlier + 1:04}"

    def pseudonym_of(self, person: Person) -> str:
        """The pseudonym of the person's earlier requests, or a new one."""
        known = same_person(self.db, self.keyring, person)
        if known:
            record = self.db.execute("SELECT record FROM request WHERE id = ?", (known[-1],)).fetchone()[0]
            return Request.from_json(json.loads(record)).pseudonym
        return "P-" + "".join(secrets.choice(ALPHABET) for _ in range(8))

    def save(
        self, request: Request, kind: str, payload: Mapping[str, JsonValue], *, person: Person | None = None
    ) -> Request:
        """Write a request, and the entry that tells of it; returns the request.

        Args:
            kind: one of `terms.KINDS`.
            payload: what was done, without personal data.
            person: encrypt and keep it, with its marks under the keys in use.
        """
        if request.status not in STATUSES:
            raise ValueError(f"{request.status!r} is not a row of STATUSES")
        record = json.dumps(request.to_json(), sort_keys=True)
        self.db.execute(
            "INSERT INTO request VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record",
            (request.id, record),
        )
        if person is not None:
            self._keep(request.id, person)
        self.log(kind, payload, request.id)
        return request

    def delete_person(self, id: str) -> None:
        """Delete the encrypted person; call `save` or `log` after it. The marks stay."""
        self.db.execute("DELETE FROM person WHERE request = ?", (id,))

    def delete_requests(self, ids: Sequence[str], payload: Mapping[str, JsonValue]) -> None:
        """Delete requests with all that belongs to them, and the content of their entries, and log that."""
        gone = []
        for entry in read_entries(self.db):
            if (said := entry.said) and said.request in ids:
                self.db.execute("UPDATE trail SET content = NULL WHERE number = ?", (entry.number,))
                gone.append(entry.number)
        for table in ("person", "mark"):
            self.db.executemany(f"DELETE FROM {table} WHERE request = ?", [(id,) for id in ids])
        self.db.executemany("DELETE FROM request WHERE id = ?", [(id,) for id in ids])
        self.log(trail.EXPIRED, {**payload, "entries": trail.ranges(gone), "requests": len(ids)})

    def log(self, kind: str, payload: Mapping[str, JsonValue], request: str = "") -> None:
        """Append an entry about a request, as its rows are now, or about the whole register."""
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not a row of KINDS")
        content = Content.of(request, payload, state_of(self.db, request) if request else "")
        entry, self.head = trail.next_entry(self.keyring, self.register, self.head, kind, content)
        values = (
            entry.number, entry.at, entry.kind, entry.content, entry.digest, entry.before, entry.key, entry.signature,
        )  # fmt: skip
        self.db.execute("INSERT INTO trail VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        head = (self.head.count, self.head.hash, self.head.key, self.head.signature)
        self.db.execute("UPDATE head SET count = ?, hash = ?, key = ?, signature = ?", head)

    def _keep(self, id: str, person: Person) -> None:
        sealed = self.keyring.seal(json.dumps(person.to_json()).encode(), id)
        self.db.execute("INSERT OR REPLACE INTO person VALUES (?, ?, ?)", (id, sealed.key, sealed.data))
        self.db.execute("DELETE FROM mark WHERE request = ?", (id,))
        rows = [(id, kind, mac.key, mac.digest) for kind, mac in marks(person, self.keyring)]
        self.db.executemany("INSERT INTO mark VALUES (?, ?, ?, ?)", rows)


def state_of(db: sqlite3.Connection, id: str) -> str:
    """SHA-256 of all rows of a request."""
    queries = (
        "SELECT record FROM request WHERE id = ?",
        "SELECT kind, key, digest FROM mark WHERE request = ? ORDER BY kind, key, digest",
        "SELECT key, hex(data) FROM person WHERE request = ?",
    )
    rows = [db.execute(query, (id,)).fetchall() for query in queries]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def read_entries(db: sqlite3.Connection) -> list[Entry]:
    """The entries of the trail, oldest first."""
    return [_entry(row) for row in db.execute("SELECT * FROM trail ORDER BY number")]


def read_entry(db: sqlite3.Connection, number: int) -> Entry | None:
    """One entry of the trail."""
    row = db.execute("SELECT * FROM trail WHERE number = ?", (number,)).fetchone()
    return _entry(row) if row else None


def read_head(db: sqlite3.Connection) -> Head:
    """The head that the register holds. A head that was deleted reads as one that nobody signed."""
    row = db.execute("SELECT count, hash, key, signature FROM head").fetchone() or (0, "", "", "")
    return Head(row[0] if isinstance(row[0], int) else -1, *map(_text, row[1:]))


def _entry(row: Sequence[object]) -> Entry:
    number, at, kind, content, *rest = row
    said = None if content is None else _text(content)
    return Entry(number, _text(at), _text(kind), said, *map(_text, rest))  # type: ignore[arg-type]


def _text(value: object) -> str:
    """A value of a text column; one of another type can only come from outside, and fits no signature."""
    return value if isinstance(value, str) else repr(value)
