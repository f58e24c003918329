"""The register: nothing in clear, and one sentence for each place or key that is not as it must be."""

import os
import re
import shutil
import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from loka import LokaError, UserError
from loka.erasure import Register, Request, database, steps
from loka.erasure import register as module
from loka.erasure.database import MIGRATIONS, Database
from loka.erasure.register import default_keys, default_register


def everything(*folders: Path) -> bytes:
    return b"".join(file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file())


@pytest.fixture
def first(register: Register, write, today: date) -> Request:
    return steps.receive(register, write(0), today=today)


def test_a_request_reads_back(register: Register, first: Request) -> None:
    assert register.request(first.id) == first
    assert register.requests() == [first]
    assert register.person(first.id).identifiers == ("person0@example.org", "C-4711")
    assert Request.from_json(first.to_json()) == first


def test_nothing_of_the_person_is_in_clear(register: Register, first: Request, today: date) -> None:
    secrets = [b"Erika", b"Mustermann", b"person0@", b"C-4711", b"mustermann", b"c-4711"]
    assert first.pseudonym.encode() in everything(register.folder)  # what is there can be found
    assert not [text for text in secrets if text in everything(register.folder, register.keys_folder)]
    sealed = register.database.connection.execute("SELECT data FROM person").fetchone()[0]
    assert sealed in everything(register.folder)
    steps.close(register, first.id, "answered", today=today)
    assert sealed not in everything(register.folder)
    with pytest.raises(UserError, match="was deleted, and nothing can bring it back"):
        register.person(first.id)


@pytest.mark.parametrize("record", ["{", "{}", '{"status": "eaten"}'])
def test_a_touched_request_is_one_sentence(register: Register, first: Request, record: str) -> None:
    with register.database.transaction() as db:
        db.execute("UPDATE request SET record = json_patch(record, ?)" if "eaten" in record else
                   "UPDATE request SET record = ?", (record,))  # fmt: skip
    with pytest.raises(LokaError, match="cannot be read .*; `loka erase audit` names it"):
        register.requests()
    assert str(register.verify()) == f"entry 1 does not fit: the request {first.id} was changed from outside after it"


def test_files_are_for_the_owner_alone(register: Register, first: Request) -> None:
    assert register.folder.stat().st_mode & 0o777 == 0o700
    files = [path for path in register.folder.iterdir() if "sqlite" in path.name]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_an_unknown_request_is_named_with_those_that_are_there(register: Register, first: Request) -> None:
    with pytest.raises(UserError, match=r"has no request 'ER-2024-0010'; choose from ER-2024-0001\."):
        register.request("ER-2024-0010")


def test_persons_are_known_by_identifiers_or_by_name(register: Register, first: Request) -> None:
    person = register.person(first.id)
    same = [
        type(person)("Somebody Else", identifiers=("PERSON0@example.org",)),
        type(person)("erika  mustermann"),
        type(person)("E. Mustermann", identifiers=("c-4711",)),
    ]
    others = [type(person)("Erika Mustermann", identifiers=("C-9",)), type(person)("Erik Mustermann")]
    assert [[r.id for r in register.requests_of(each)] for each in same] == [[first.id]] * 3
    assert [register.requests_of(each) for each in others] == [[], []]


def test_there_is_no_register(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no register in .*none'; name its folder by --register"):
        Register(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_keys_may_not_lie_in_the_register(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be outside of the register"):
        Register(tmp_path / "register", keys=tmp_path / "register" / "keys", create=True)
    assert not (tmp_path / "register").exists()


def test_missing_keys_are_not_made_anew(register: Register, first: Request) -> None:
    shutil.rmtree(register.keys_folder)
    with pytest.raises(UserError, match="the keys for identifiers and values and signing are missing from"):
        Register(register.folder, create=True)
    assert not register.keys_folder.exists()


def test_the_keys_of_another_register(register: Register, first: Request, tmp_path: Path) -> None:
    with Register(tmp_path / "other", create=True) as other, pytest.raises(UserError, match="are not those of the"):
        Register(register.folder, keys=other.keys_folder)
    missing = register.keyring.identifiers[0].id
    (register.keys_folder / "identifiers-1.key").write_text(os.urandom(32).hex())
    with Register(register.folder) as opened, pytest.raises(UserError, match=f"the key {missing} of identifiers"):
        opened.requests_of(register.person(first.id))


def test_a_locked_register(register: Register, first: Request, monkeypatch, write, today: date) -> None:
    monkeypatch.setattr(database, "BUSY", 0.05)
    monkeypatch.setattr(module, "BUSY", 0.05)
    with closing(sqlite3.connect(register.database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with Register(register.folder) as opened, pytest.raises(UserError, match="has the register .* locked; wait"):
            steps.receive(opened, write(1), today=today)
    with register.change(), Register(register.folder) as opened, pytest.raises(UserError, match="locked"):
        steps.receive(opened, write(1), today=today)
    assert register.requests() == [first]


@pytest.mark.parametrize("part", ["folder", "file", "keys"])
def test_a_read_only_register(register: Register, first: Request, write, today: date, part: str) -> None:
    place = {"folder": register.folder, "file": register.database.path, "keys": register.keys_folder}[part]
    mode = place.stat().st_mode
    place.chmod(mode & ~0o222)
    try:
        with (
            pytest.raises(UserError, match=f"{re.escape(str(place))}' is read-only"),
            Register(register.folder) as again,
        ):
            steps.receive(again, write(1), today=today)
    finally:
        place.chmod(mode)
    assert register.requests() == [first]


def test_a_newer_version_is_refused_and_left_alone(register: Register, first: Request) -> None:
    register.database.connection.execute("PRAGMA user_version = 99")
    register.close()
    before = register.database.path.read_bytes()
    with pytest.raises(UserError, match="is of version 99, and this LOKA reads versions up to 1; install a newer"):
        Register(register.folder)
    assert register.database.path.read_bytes() == before


def test_an_older_version_is_migrated_whole_or_not_at_all(register: Register, first: Request) -> None:
    register.close()
    broken = (*MIGRATIONS, ("ALTER TABLE request ADD COLUMN note TEXT DEFAULT 'new'", "no sense"))
    with pytest.raises(LokaError, match="damaged"):
        Database(register.folder, migrations=broken)
    with closing(Database(register.folder, migrations=(*MIGRATIONS, broken[-1][:1]))) as migrated:
        assert migrated.version == 2
        assert migrated.connection.execute("SELECT id, note FROM request").fetchall() == [(first.id, "new")]


def test_other_files_are_no_registers(register: Register, tmp_path: Path) -> None:
    path = tmp_path / "other" / "register.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE cat (name TEXT)")
    with pytest.raises(UserError, match="is a database of something else"):
        Register(path.parent, create=True)
    path.write_bytes(b"no database" * 100)
    with pytest.raises(LokaError, match="is damaged .*; restore the folder from a backup"):
        Register(path.parent)


def test_where_the_register_and_its_keys_are(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOKA_REGISTER", str(tmp_path / "a"))
    assert default_register() == tmp_path / "a"
    assert default_keys(tmp_path / "a") == tmp_path / "a-keys"
    monkeypatch.setenv("LOKA_KEYS", str(tmp_path / "b"))
    assert default_keys(tmp_path / "a") == tmp_path / "b"
    monkeypatch.setenv("LOKA_REGISTER", "")
    assert default_register().parts[-2:] == ("loka", "erasure")
