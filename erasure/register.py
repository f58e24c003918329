"""The register of requests: one SQLite file with the requests and their audit trail, and keys outside of it."""

from __future__ import annotations

import difflib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_data_path
from pydantic import JsonValue

from .._util.errors import LokaError, UserError
from .._util.files import writing
from . import trail
from .change import Change, read_entries, read_entry, read_head, state_of
from .database import BUSY, Database, check_writable, locked
from .keys import NEXT, Keyring, Sealed
from .marks import same_person
from .person import Person
from .record import Request
from .trail import Entry, Fault, Trail


def default_register() -> Path:
    """The folder of the register where none is named: `LOKA_REGISTER`, or one under the user's data."""
    return Path(os.environ.get("LOKA_REGISTER") or user_data_path("loka") / "erasure")


def default_keys(register: Path) -> Path:
    """The folder of the keys where none is named: `LOKA_KEYS`, or the register's own name with `-keys`."""
    return Path(os.environ.get("LOKA_KEYS") or register.with_name(f"{register.absolute().name}-keys"))


class Register:
    """An open register. Use it as a context manager, or close it.

    Args:
        folder: holds `register.sqlite`; see `default_register`.
        keys: holds the keys; see `default_keys`.
        create: make the register, and keys if there are none, where the folder holds no register.

    Raises:
        UserError: no register, locked, read-only or of a newer version; keys that are missing or of another register.
        LokaError: the file is damaged, or the disk is full.
    """

    def __init__(self, folder: Path | None = None, *, keys: Path | None = None, create: bool = False) -> None:
        self.folder = Path(folder or default_register())
        self.keys_folder = Path(keys or default_keys(self.folder))
        if self.keys_folder.resolve().is_relative_to(self.folder.resolve()):
            raise UserError(f"the keys must be outside of the register {str(self.folder)!r}; name another --keys.")
        self.database = self._create() if create else Database(self.folder)
        try:
            self.keyring = Keyring.load(self.keys_folder)
            self.id = self._meta("id")
            self._check_keys()
        except BaseException:
            self.database.close()
            raise

    def __enter__(self) -> Register:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def requests(self) -> list[Request]:
        """All requests, by their ids."""
        rows = self._rows("SELECT record FROM request ORDER BY id")
        return [self._read(record) for (record,) in rows]

    def request(self, id: str) -> Request:
        """The request with this id.

        Raises:
            UserError: there is none.
        """
        rows = self._rows("SELECT record FROM request WHERE id = ?", id)
        if not rows:
            known = [known for (known,) in self._rows("SELECT id FROM request ORDER BY id")]
            near = difflib.get_close_matches(id, known, 3) or known[-3:]
            choose = f"choose from {', '.join(near)}" if near else "it has none"
            raise UserError(f"the register {str(self.folder)!r} has no request {id!r}; {choose}.")
        return self._read(rows[0][0])

    def person(self, id: str) -> Person:
        """The person of a request, decrypted.

        Raises:
            UserError: there is no such request, its person was deleted, or the key is missing.
        """
        person = self.held_person(id)
        if person is None:
            raise UserError(f"the person of {self.request(id).id} was deleted, and nothing can bring it back.")
        return person

    def held_person(self, id: str) -> Person | None:
        """As `person`, but `None` where it was deleted."""
        rows = self._rows("SELECT key, data FROM person WHERE request = ?", id)
        if not rows:
            return None
        return Person.from_json(json.loads(self.keyring.unseal(Sealed(*rows[0]), id)))

    def requests_of(self, person: Person) -> list[Request]:
        """The requests of this person, also those whose person was deleted; see `marks.same_person`."""
        with self.database.errors():
            ids = same_person(self.database.connection, self.keyring, person)
        return [self.request(id) for id in ids]

    def entries(self) -> list[Entry]:
        """The audit trail, oldest first."""
        with self.database.errors():
            return read_entries(self.database.connection)

    def payloads(self, request: str = "", *, kind: str = "") -> list[dict[str, JsonValue]]:
        """What the trail's entries say, oldest first: of a request, of a kind, or of all. Purged ones say nothing."""
        every = ((entry.kind, entry.said) for entry in self.entries() if entry.said)
        return [dict(s.payload) for k, s in every if request in ("", s.request) and kind in ("", k)]

    @contextmanager
    def change(self, *, check: bool = True) -> Iterator[Change]:
        """Change the register, as one transaction that no other process can disturb.

        The trail's end is checked first, so that nothing is added to a trail that was cut.

        Raises:
            UserError: locked or read-only.
            LokaError: the trail's end was touched, or the disk is full.
        """
        check_writable(self.folder, self.keys_folder)
        with self._lock():
            self.keyring = Keyring.load(self.keys_folder)  # another process may have rotated them
            with self.database.transaction() as db:
                if check:
                    self._check_end(db)
                change = Change(db, self.keyring, self.id)
                yield change
                self.keyring = change.keyring
            trail.write_anchor(self.keys_folder, self.id, change.head)

    def verify(self) -> Fault | None:
        """The first entry of the trail that was touched, or whose request is not as the trail left it; else `None`."""
        try:
            anchor = trail.read_anchor(self.keys_folder, self.id)  # before the entries: they may become more meanwhile
        except LokaError as error:
            return Fault(len(self.entries()), f"is the last one, but {error}")
        with self.database.transaction("DEFERRED") as db:
            found = Trail(self.id, read_entries(db), read_head(db), anchor)
            keyring = Keyring.load(self.keys_folder)
            return trail.verify(found, keyring) or _state_fault(db, found.entries)

    def _create(self) -> Database:
        """The database, after the register was made in it if there was none."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock():
            database = Database(self.folder, create=True)
            if not database.fresh:
                return database
            keyring, id = Keyring.create(self.keys_folder), os.urandom(8).hex()
            head = trail.empty_head(keyring, id)
            trail.write_anchor(self.keys_folder, id, head)
            with database.transaction() as db:
                database.migrate()
                db.execute("INSERT INTO meta VALUES ('id', ?)", (id,))
                db.execute("INSERT INTO head VALUES (1, ?, ?, ?, ?)", (head.count, head.hash, head.key, head.signature))
            return database

    def _check_keys(self) -> None:
        used = {key for (key,) in self._rows("SELECT key FROM head UNION SELECT key FROM trail")}
        if not used & {key.id for key in self.keyring.signing}:
            raise UserError(
                f"the keys in {str(self.keys_folder)!r} are not those of the register {str(self.folder)!r}; {NEXT}."
            )

    def _check_end(self, db: sqlite3.Connection) -> None:
        head, count = read_head(db), db.execute("SELECT max(number) FROM trail").fetchone()[0] or 0
        anchor = trail.read_anchor(self.keys_folder, self.id)
        fault = trail.head_fault(
            self.id, head, count, _hash_at(db, head.count), self.keyring
        ) or trail.anchor_fault(self.id, head, anchor, _hash_at(db, anchor.count), self.keyring)  # fmt: skip
        if fault:
            raise LokaError(
                f"nothing was changed, because the trail was touched: {fault}; restore the register from a backup."
            )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        lock = FileLock(self.folder / "register.lock", timeout=BUSY)
        try:
            with writing(self.folder):
                lock.acquire()
        except Timeout:
            raise locked(self.folder) from None
        try:
            yield
        finally:
            lock.release()

    def _read(self, record: str) -> Request:
        try:
            return Request.from_json(json.loads(record))
        except (ValueError, UserError) as error:
            raise LokaError(
                f"a request in the register {str(self.folder)!r} cannot be read ({error}); `loka erase audit` names it."
            ) from error

    def _meta(self, name: str) -> str:
        return self._rows("SELECT value FROM meta WHERE name = ?", name)[0][0]

    def _rows(self, query: str, *values: str) -> list[tuple]:
        with self.database.errors():
            return self.database.connection.execute(query, values).fetchall()


def _hash_at(db: sqlite3.Connection, number: int) -> str | None:
    if number == 0:
        return trail.FIRST
    entry = read_entry(db, number)
    return entry.hash if entry else None


def _state_fault(db: sqlite3.Connection, entries: Sequence[Entry]) -> Fault | None:
    """The last entry of a request that is not as this entry left it."""
    last = {said.request: (entry.number, said.state) for entry in entries if (said := entry.said) and said.request}
    for (id,) in db.execute("SELECT id FROM request ORDER BY id"):
        number, state = last.pop(id, (0, ""))
        if not number:
            return Fault(len(entries), f"is the last one, but none tells of the request {id}")
        if state_of(db, id) != state:
            return Fault(number, f"does not fit: the request {id} was changed from outside after it")
    for id, (number, _) in last.items():
        return Fault(number, f"does not fit: the request {id} was removed from outside after it")
    return None
