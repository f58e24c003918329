"""The SQLite file of a register: opening, migrations, transactions, and errors in one sentence."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .._util.errors import LokaError, UserError
from .._util.files import writing

FILE = "register.sqlite"
BUSY = 10.0  # seconds to wait for another process

# Each migration brings a register from the version before to the next. Never change one: add another.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        "CREATE TABLE request (id TEXT PRIMARY KEY, record TEXT NOT NULL)",
        "CREATE TABLE mark (request TEXT NOT NULL REFERENCES request (id), kind TEXT NOT NULL, key TEXT NOT NULL, "
        "digest TEXT NOT NULL, PRIMARY KEY (request, kind, key, digest))",
        "CREATE INDEX mark_digest ON mark (digest)",
        "CREATE TABLE person (request TEXT PRIMARY KEY REFERENCES request (id), key TEXT NOT NULL, data BLOB NOT NULL)",
        "CREATE TABLE trail (number INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, content TEXT, "
        "digest TEXT NOT NULL, before TEXT NOT NULL, key TEXT NOT NULL, signature TEXT NOT NULL)",
        "CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), count INTEGER NOT NULL, hash TEXT NOT NULL, "
        "key TEXT NOT NULL, signature TEXT NOT NULL)",
        "CREATE TRIGGER trail_stays BEFORE DELETE ON trail BEGIN SELECT RAISE(ABORT, 'the trail is append-only'); END",
        "CREATE TRIGGER trail_unchanged BEFORE UPDATE ON trail WHEN NEW.content IS NOT NULL OR NEW.number <> OLD.number"
        " OR NEW.at <> OLD.at OR NEW.kind <> OLD.kind OR NEW.digest <> OLD.digest OR NEW.before <> OLD.before"
        " OR NEW.key <> OLD.key OR NEW.signature <> OLD.signature"
        " BEGIN SELECT RAISE(ABORT, 'the trail is append-only'); END",
    ),
)


class Database:
    """An open register file, in write-ahead mode.

    `create` makes the file where there is none. `fresh` tells that it holds no register yet.

    Raises:
        UserError: there is no register, it is read-only, locked, of a newer version, or no register at all.
    """

    def __init__(self, folder: Path, *, create: bool = False, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
        self.path = folder / FILE
        self.migrations = migrations
        if not create and not self.path.exists():
            raise _missing(folder)
        check_writable(folder, self.path)
        if create:
            with writing(self.path):  # SQLite gives its log the same permissions
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        with self.errors():
            self.connection = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)
            # bytes that are not UTF-8 were put there from outside; verifying must be able to read and name them
            self.connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        try:
            with self.errors():
                self._prepare(create)
        except BaseException:
            self.connection.close()
            raise

    @property
    def version(self) -> int:
        """The number of migrations that the file has been through."""
        return self.connection.execute("PRAGMA user_version").fetchone()[0]

    @property
    def fresh(self) -> bool:
        """Whether the file holds no register yet."""
        return self.version == 0

    def migrate(self) -> None:
        """Bring the file to the version of this program, within the transaction that is open."""
        for number, statements in enumerate(self.migrations[self.version :], self.version + 1):
            for statement in statements:
                self.connection.execute(statement)
            self.connection.execute(f"PRAGMA user_version = {number}")

    @contextmanager
    def transaction(self, begin: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """All changes of the block, or none. `DEFERRED` is enough for reading one state."""
        with self.errors():
            self.connection.execute(f"BEGIN {begin}")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite has rolled back already, or the first error matters more
                    self.connection.execute("ROLLBACK")
                raise

    def wipe(self) -> None:
        """Take what was deleted out of the write-ahead log, too."""
        with self.errors():
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn errors of SQLite into sentences."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise _explained(error, self.path.parent) from error

    def _prepare(self, create: bool) -> None:
        run = self.connection.execute
        if self.version > len(self.migrations):
            raise UserError(
                f"the register {str(self.path.parent)!r} is of version {self.version}, and this LOKA reads versions up "
                f"to {len(self.migrations)}; install a newer LOKA."
            )
        if run("SELECT count(*) FROM sqlite_master").fetchone()[0] and self.fresh:
            raise UserError(f"{str(self.path)!r} is a database of something else; name another --register.")
        if self.fresh and not create:
            raise _missing(self.path.parent)
        if run("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise UserError(f"{str(self.path.parent)!r} cannot hold a write-ahead log; choose a local disk.")
        for pragma in ("synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            run(f"PRAGMA {pragma}")
        if 0 < self.version < len(self.migrations):
            with self.transaction():
                self.migrate()


def check_writable(*places: Path) -> None:
    """Refuse a file or folder that is read-only. Nothing is forbidden to root, so the permissions count as well.

    Raises:
        UserError: one of those that exist is read-only.
    """
    for place in places:
        if place.exists() and (not os.access(place, os.W_OK) or not place.stat().st_mode & 0o222):
            raise _read_only(place)


def locked(folder: Path) -> UserError:
    """The error for a register that another process changes for too long."""
    return UserError(
        f"another process has the register {str(folder)!r} locked; wait until it has ended, and give the command again."
    )


def _missing(folder: Path) -> UserError:
    return UserError(
        f"there is no register in {str(folder)!r}; name its folder by --register or LOKA_REGISTER, or log the first "
        "request by `loka erase new REQUEST.yaml`."
    )


def _read_only(place: Path) -> UserError:
    return UserError(
        f"{str(place)!r} is read-only; make it writable, or copy the register to a place that you may write to."
    )


def _explained(error: sqlite3.DatabaseError, folder: Path) -> LokaError:
    text, name = str(error), repr(str(folder))
    if "locked" in text or "busy" in text:
        return locked(folder)
    if "readonly" in text or "unable to open" in text:
        return _read_only(folder)
    if "full" in text:
        return LokaError(f"the disk of the register {name} is full, and nothing was changed; free some space.")
    return LokaError(f"the register {name} is damaged ({text}); restore the folder from a backup.")
