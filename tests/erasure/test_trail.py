"""The trail: every touch is found and named, and a killed process leaves neither a gap nor half an entry."""

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress
from datetime import date
from pathlib import Path

import pytest

from loka import LokaError, UserError
from loka.erasure import Register, steps, upkeep

COLUMNS = ("number", "at", "kind", "content", "digest", "before", "key", "signature")
OTHERS = {"request": "record", "mark": "digest", "person": "data", "head": "signature"}
TEXT = "CAST(? AS TEXT)"
ROWS = {  # how the rows of each table are put back
    "trail": ", ".join(["?"] + [TEXT] * 7),
    "request": f"{TEXT}, {TEXT}",
    "mark": ", ".join([TEXT] * 4),
    "person": f"{TEXT}, {TEXT}, ?",
    "head": f"?, ?, {TEXT}, {TEXT}, {TEXT}",
}
MUTATIONS = 1000
KILLS = 50


@pytest.fixture
def filled(register: Register, write, today: date) -> Register:
    """A register with every kind of entry, old and new keys, and entries whose content was deleted."""
    for number in range(4):
        steps.receive(register, write(number), today=today)
    steps.close(register, "ER-2024-0004", "answered", today=today.replace(year=2019))
    upkeep.expire(register, 3, today=today)
    upkeep.rotate(register)
    steps.extend(register, "ER-2024-0001", 2, "many records", today=today)
    steps.refuse(register, "ER-2024-0002", "a claim is pending", today=today)
    upkeep.purge(register)
    return register


@pytest.fixture
def raw(filled: Register) -> sqlite3.Connection:
    """The file as somebody from outside opens it: without triggers, and without decoding text."""
    with closing(sqlite3.connect(filled.database.path, isolation_level=None)) as opened:
        opened.text_factory = bytes
        opened.execute("PRAGMA synchronous = OFF")
        for trigger in ("trail_stays", "trail_unchanged"):
            opened.execute(f"DROP TRIGGER {trigger}")
        yield opened


def touched(value: object, rng: random.Random) -> object:
    """A number that is another one, or text or bytes with one other byte."""
    if isinstance(value, int):
        return value + rng.choice([-1000, 1000])
    assert isinstance(value, bytes)
    place = rng.randrange(len(value))
    return value[:place] + bytes([(value[place] + rng.randrange(1, 256)) % 256]) + value[place + 1 :]


def field(raw: sqlite3.Connection, entries: int, rng: random.Random) -> int:
    number, column = rng.randint(1, entries), rng.choice(COLUMNS)
    value = raw.execute(f"SELECT {column} FROM trail WHERE number = ?", (number,)).fetchone()[0]
    if value is None:  # a deleted content: one is put in its place
        value = b"{}"
    cast = "?" if isinstance(value, int) else TEXT
    raw.execute(f"UPDATE trail SET {column} = {cast} WHERE number = ?", (touched(value, rng), number))
    # a number that runs ahead leaves a gap; one that runs behind stands before the first
    first = raw.execute("SELECT min(number) FROM trail").fetchone()[0]
    return 1 if first < 1 else number


def removed(raw: sqlite3.Connection, entries: int, rng: random.Random) -> int:
    number = rng.randint(1, entries)
    raw.execute("DELETE FROM trail WHERE number = ?", (number,))
    return number


def swapped(raw: sqlite3.Connection, entries: int, rng: random.Random) -> int:
    first, second = sorted(rng.sample(range(1, entries + 1), 2))
    for old, new in ((first, 0), (second, first), (0, second)):
        raw.execute("UPDATE trail SET number = ? WHERE number = ?", (new, old))
    return first


def cut(raw: sqlite3.Connection, entries: int, rng: random.Random) -> int:
    number = rng.randint(1, entries)
    raw.execute("DELETE FROM trail WHERE number >= ?", (number,))
    return number


def emptied(raw: sqlite3.Connection, entries: int, rng: random.Random) -> int:
    full = [n for (n,) in raw.execute("SELECT number FROM trail WHERE content IS NOT NULL AND kind <> 'expired'")]
    number = rng.choice(full)
    raw.execute("UPDATE trail SET content = NULL WHERE number = ?", (number,))
    return number


def other_table(raw: sqlite3.Connection, entries: int, rng: random.Random) -> None:
    table, column = rng.choice(list(OTHERS.items()))
    row, value = rng.choice(raw.execute(f"SELECT rowid, {column} FROM {table}").fetchall())
    cast = "?" if table == "person" else TEXT
    raw.execute(f"UPDATE {table} SET {column} = {cast} WHERE rowid = ?", (touched(value, rng), row))


def test_no_mutation_is_missed(filled: Register, raw: sqlite3.Connection) -> None:
    rng = random.Random(34)
    tables = {name: raw.execute(f"SELECT * FROM {name}").fetchall() for name in ("trail", *OTHERS)}
    entries = len(tables["trail"])
    assert filled.verify() is None
    kinds = Counter(rng.choices((field, removed, swapped, cut, emptied, other_table), (6, 1, 1, 1, 1, 1), k=MUTATIONS))
    for mutate in kinds.elements():
        raw.execute("BEGIN")
        number = mutate(raw, entries, rng)
        raw.execute("COMMIT")
        fault = filled.verify()
        assert fault is not None, mutate
        assert number in (None, fault.number), (mutate, number, fault)
        raw.execute("BEGIN")
        for name, rows in tables.items():
            raw.execute(f"DELETE FROM {name}")
            raw.executemany(f"INSERT INTO {name} VALUES ({ROWS[name]})", rows)
        raw.execute("COMMIT")
    assert filled.verify() is None
    assert min(kinds.values()) > 50


def test_the_head_beside_the_keys_finds_a_cut_that_is_consistent_in_itself(tmp_path: Path, write, today: date) -> None:
    """Somebody brings back the whole register as it was before the last entries."""
    with Register(tmp_path / "register", create=True) as register:
        steps.receive(register, write(0), today=today)
    older = register.database.path.read_bytes()
    with Register(register.folder) as register:
        for number in (1, 2):
            steps.receive(register, write(number), today=today)
    register.database.path.write_bytes(older)
    with Register(register.folder) as register:
        assert str(register.verify()) == "entry 2 is missing: the folder of the keys knows of 3 entries"
        with pytest.raises(LokaError, match="nothing was changed, because the trail was touched: entry 2 is missing"):
            steps.receive(register, write(3), today=today)
        with pytest.raises(UserError, match="names the person"):
            upkeep.accept_restore(register, "the disk with Erika Mustermann failed")
        upkeep.accept_restore(register, "the disk failed")
        assert register.verify() is None
        (lost,) = upkeep.restores(register)
        assert (lost.first, lost.last, lost.reason) == (2, 3, "the disk failed")
        with pytest.raises(UserError, match="no entry is missing at the end"):
            upkeep.accept_restore(register, "again")
        steps.receive(register, write(3), today=today)
        assert register.verify() is None


@pytest.mark.parametrize("field", ["count", "hash", "key", "signature"])
def test_a_touched_or_missing_head_beside_the_keys(filled: Register, field: str) -> None:
    path = filled.keys_folder / f"head-{filled.id}.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, field: 1 if field == "count" else data[field][::-1]}))
    assert "touched" in str(filled.verify())
    path.unlink()
    assert "is missing, and without it cut entries do not show" in str(filled.verify())


def test_an_entry_under_an_old_key_after_a_rotation_is_found(filled: Register) -> None:
    with filled.change() as change:
        ring = change.keyring
        change.keyring = type(ring)(ring.folder, ring.identifiers, ring.values, ring.signing[:1])
        change.log("purged", {})
    assert "signed with a key that was not in use any more" in str(filled.verify())


def test_the_trail_refuses_to_be_changed_by_accident(filled: Register) -> None:
    for statement in ("DELETE FROM trail", "UPDATE trail SET at = ''", "UPDATE trail SET content = '{}'"):
        with pytest.raises(LokaError, match="append-only"), filled.database.transaction() as db:
            db.execute(statement)


def test_fifty_kills_lose_nothing(tmp_path: Path, write, today: date) -> None:
    """A process logs requests until it is killed. What it reported is there, whole; its command can be given again."""
    rng = random.Random(34)
    files = [write(number) for number in range(600)]
    reported, first, folder = 0, 0, tmp_path
    for kill in range(KILLS):
        if kill % 5 == 0:  # also while the register is being made
            folder, first = tmp_path / f"register-{kill}", reported
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with suppress(BaseException), Register(folder, create=True) as register:
                for file in files[reported:]:
                    steps.receive(register, file, today=today)
                    os.write(writing, b".")
            os._exit(1)
        os.close(writing)
        with open(reading, "rb", buffering=0) as pipe:
            wanted = rng.randrange(4)
            done = sum(len(pipe.read(1)) for _ in range(wanted))
            time.sleep(rng.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            assert done == wanted
            reported += done + len(pipe.read())
        with Register(folder, create=True) as register:
            assert register.verify() is None
            logged = reported - first
            assert len(register.entries()) == len(register.requests())
            assert len(register.requests()) - logged in (0, 1)
            if len(register.requests()) > logged:  # it was logged, and killed before it said so
                with pytest.raises(UserError, match="is still open"):
                    steps.receive(register, files[reported], today=today)
            else:
                steps.receive(register, files[reported], today=today)
            reported += 1
            assert register.verify() is None
            assert len(register.requests()) == logged + 1
            assert all(register.held_person(request.id) for request in register.requests())


def test_two_processes_at_once(tmp_path: Path, write, today: date) -> None:
    children = []
    for half in (range(8), range(8, 16)):
        files = [write(number) for number in half]
        if (child := os.fork()) == 0:
            with suppress(BaseException):
                for file in files:
                    with Register(tmp_path / "register", create=True) as register:
                        steps.receive(register, file, today=today)
                os._exit(0)
            os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    with Register(tmp_path / "register") as register:
        assert register.verify() is None
        assert [request.id for request in register.requests()] == [f"ER-2024-{n:04}" for n in range(1, 17)]
