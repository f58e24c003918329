"""The steps of a request, upkeep of the register, and the order of the overview."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from loka import LokaError, UserError
from loka.erasure import Person, Register, Request, overview, steps, upkeep
from loka.erasure.free_text import names_person


@pytest.fixture
def first(register: Register, write, today: date) -> Request:
    return steps.receive(register, write(0), today=today)


def test_logging_sets_id_pseudonym_and_deadline(register: Register, first: Request) -> None:
    assert (first.id, first.status) == ("ER-2024-0001", "received")
    assert first.due == first.first_due == date(2024, 12, 4)
    assert first.identity is not None
    assert (first.received, first.identity.on) == (date(2024, 11, 4), date(2024, 11, 5))
    said = register.entries()[0].said
    assert said is not None
    assert said.request == first.id
    assert dict(said.payload) == {
        "pseudonym": first.pseudonym, "received": "2024-11-04", "due": "2024-12-04", "channel": "e-mail",
        "ground": "b", "identity": "2024-11-05",
    }  # fmt: skip


def test_twice_for_one_person(register: Register, first: Request, write, today: date) -> None:
    with pytest.raises(UserError) as error:
        steps.receive(register, write(0, channel="owl"), today=today)
    assert f"the request {first.id} of 2024-11-04 by this person is still open" in str(error.value)
    assert "'owl' is unknown" in str(error.value)
    assert register.requests() == [first]
    steps.close(register, first.id, "answered", today=today)
    again = steps.receive(register, write(0), today=today)
    assert (again.id, again.pseudonym) == ("ER-2024-0002", first.pseudonym)
    assert steps.receive(register, write(1), today=today).pseudonym != first.pseudonym


def test_no_register_is_made_for_a_faulty_file(tmp_path: Path, write) -> None:
    with pytest.raises(UserError, match="'owl' is unknown"):
        steps.register_for(write(0, channel="owl"), tmp_path / "new")
    assert not list(tmp_path.glob("new*"))
    with steps.register_for(write(0), tmp_path / "new") as opened:
        assert opened.requests() == []


def test_identity_may_be_verified_later(register: Register, write, today: date) -> None:
    request = steps.receive(register, write(0, identity=None), today=today)
    with pytest.raises(UserError, match="is not between receipt, 2024-11-04, and today"):
        steps.identify(register, request.id, "by telephone", on=date(2024, 11, 3), today=today)
    later = steps.identify(register, request.id, "by telephone", on=date(2024, 11, 6), today=today)
    assert later.identity is not None
    assert (later.identity.on, later.received, later.due) == (date(2024, 11, 6), request.received, request.due)
    with pytest.raises(UserError, match="was verified on 2024-11-06 already"):
        steps.identify(register, request.id, "by letter", today=today)


def test_extended_once_within_the_first_month(register: Register, first: Request, write, today: date) -> None:
    with pytest.raises(UserError, match="the first month ended on 2024-12-04"):
        steps.extend(register, first.id, 1, "many records", today=date(2024, 12, 5))
    with pytest.raises(UserError, match="give --months 1 or 2"):
        steps.extend(register, first.id, 3, "many records", today=today)
    with pytest.raises(UserError, match="--reason is empty"):
        steps.extend(register, first.id, 1, " ", today=today)
    assert register.request(first.id) == first
    later = steps.extend(register, first.id, 2, "many records", today=date(2024, 12, 4))
    assert (later.due, later.first_due) == (date(2025, 2, 4), date(2024, 12, 4))
    assert register.request(first.id) == later
    with pytest.raises(UserError, match="was extended on 2024-12-04 to 2025-02-04; that is allowed only once"):
        steps.extend(register, first.id, 1, "more", today=today)


def test_refused_and_closed(register: Register, first: Request, today: date) -> None:
    refused = steps.refuse(register, first.id, "a claim is pending, Art. 17(3)(e)", today=today)
    assert refused.refusal is not None
    assert (refused.status, refused.refusal.reason) == ("refused", "a claim is pending, Art. 17(3)(e)")
    for step in (steps.refuse, lambda *a, **k: steps.extend(register, first.id, 1, "x", **k)):
        with pytest.raises(UserError, match="is refused since 2024-11-29; only open requests can be changed"):
            step(register, first.id, "again", today=today)
    closed = steps.close(register, first.id, "the person was told", today=today)
    assert (closed.status, closed.refusal) == ("closed", refused.refusal)
    with pytest.raises(UserError, match="is closed since 2024-11-29"):
        steps.close(register, first.id, "again", today=today)
    assert [entry.kind for entry in register.entries()] == ["received", "refused", "closed"]


def test_an_executed_request_cannot_be_refused(register: Register, first: Request, today: date) -> None:
    with register.change() as change:
        change.save(replace(first, status="executed"), "purged", {})
    with pytest.raises(UserError, match="is executed and cannot be refused any more; close it"):
        steps.refuse(register, first.id, "too late", today=today)


@pytest.mark.parametrize(
    "text", ["Erika Mustermann", "ERIKA  MUSTERMANN asked", "to person0@EXAMPLE.org", "Frau Mustermann", "(C-4711)"]
)
def test_reasons_do_not_name_the_person(register: Register, first: Request, today: date, text: str) -> None:
    with pytest.raises(UserError, match="--reason cannot be kept: it names the person") as error:
        steps.close(register, first.id, text, today=today)
    assert text not in str(error.value)
    assert register.request(first.id) == first


def test_other_words_are_no_names() -> None:
    person = Person("Mark Long", ("M. Long",), ("C-4711",))
    assert not names_person("the mark is too long; see C-47110 and Longer", person)


def test_purging_deletes_only_what_is_not_needed(register: Register, first: Request, write, today: date) -> None:
    second = steps.receive(register, write(1), today=today)
    with pytest.raises(UserError, match="is received and needs its person; execute, refuse or close it first"):
        upkeep.purge(register, first.id)
    with register.change() as change:
        change.save(replace(second, status="executed"), "purged", {})
    assert upkeep.purge(register) == [second.id]
    assert upkeep.purge(register) == []
    assert register.held_person(first.id) is not None
    assert register.held_person(second.id) is None
    assert register.verify() is None
    with pytest.raises(UserError, match=f"{second.id} .* is still open"):
        steps.receive(register, write(1), today=today)


def test_after_the_stated_time_nothing_is_left_and_the_trail_verifies(
    register: Register, first: Request, write, today: date
) -> None:
    second = steps.receive(register, write(1), today=today)
    steps.close(register, first.id, "answered", today=today)
    assert upkeep.expire(register, 3, today=date(2027, 11, 29)) == []
    assert upkeep.expire(register, 3, today=date(2027, 11, 30)) == [first.id]
    assert [request.id for request in register.requests()] == [second.id]
    assert [entry.said is None for entry in register.entries()] == [True, False, True, False]
    assert register.verify() is None
    assert first.pseudonym.encode() not in register.database.path.read_bytes()
    assert second.pseudonym.encode() in register.database.path.read_bytes()
    assert steps.receive(register, write(0), today=today).id == "ER-2024-0003"  # no id is given twice
    with pytest.raises(UserError, match="cannot be kept for 0 years"):
        upkeep.expire(register, 0)


def test_rotation_puts_what_is_held_under_new_keys(register: Register, first: Request, write, today: date) -> None:
    second = steps.receive(register, write(1), today=today)
    closed = steps.close(register, second.id, "answered", today=today)
    old = register.keyring
    assert upkeep.rotate(register) == 1
    ring = register.keyring
    marks = dict(register.database.connection.execute("SELECT request, key FROM mark").fetchall())
    assert marks == {first.id: ring.identifiers[-1].id, second.id: old.identifiers[-1].id}
    assert register.database.connection.execute("SELECT key FROM person").fetchall() == [(ring.values[-1].id,)]
    assert register.verify() is None
    with pytest.raises(UserError, match="is still open"):
        steps.receive(register, write(0), today=today)
    assert steps.receive(register, write(1), today=today).pseudonym == closed.pseudonym


def test_a_rotation_that_was_killed_half_way_can_be_given_again(register: Register, first: Request) -> None:
    (register.keys_folder / "identifiers-2.key").write_text("ab" * 32)
    assert upkeep.rotate(register) == 1
    assert sorted(path.stem for path in register.keys_folder.glob("*.key")) == [
        "identifiers-1", "identifiers-2", "identifiers-3", "signing-1", "signing-2", "values-1", "values-2",
    ]  # fmt: skip
    assert register.verify() is None
    assert register.requests_of(register.person(first.id)) == [first]


def test_nothing_expires_from_a_touched_trail(register: Register, first: Request, today: date) -> None:
    steps.close(register, first.id, "answered", today=today)
    with register.database.transaction() as db:
        db.execute("DROP TRIGGER trail_unchanged")
        db.execute("UPDATE trail SET content = '{' WHERE number = 1")
    with pytest.raises(LokaError, match="nothing was deleted, because the trail was touched: entry 1"):
        upkeep.expire(register, 3, today=date(2030, 1, 1))
    assert len(register.requests()) == 1


def test_the_most_urgent_first(register: Register, write, today: date) -> None:
    days = (20, 2, 28, 10)
    for number, day in enumerate(days):
        steps.receive(register, write(number, received=f"2024-10-{day:02}", identity=None, country=None), today=today)
    steps.close(register, "ER-2024-0002", "answered", today=today)
    lines = overview(register.requests(), date(2024, 11, 20))
    assert [(line.request.id, line.days, line.level, line.words) for line in lines] == [
        ("ER-2024-0004", -9, "overdue", "9 days overdue"),  # 10 November 2024 is a Sunday
        ("ER-2024-0001", 0, "soon", "due today"),
        ("ER-2024-0003", 8, "fine", "8 days left"),
        ("ER-2024-0002", None, "ended", "closed on 2024-11-29"),
    ]
    assert overview(register.requests(), date(2024, 11, 21) + timedelta(days=1))[1].words == "2 days overdue"
