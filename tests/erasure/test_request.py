"""Request files: what is read, and every fault of a file at once."""

from datetime import date
from pathlib import Path

import pytest

from loka import UserError
from loka.erasure import Person, read_request
from loka.erasure.record import Identity


def refused(path: Path, today: date) -> str:
    with pytest.raises(UserError) as error:
        read_request(path, today=today)
    return str(error.value)


def test_what_a_file_says(write, today: date) -> None:
    person = {"name": " Erika  Mustermann ", "variants": ["E. Mustermann"], "identifiers": "0042"}
    made = read_request(
        write(
            channel="E_Mail", ground="Art. 17(1)(d)", person=person, received="2024-11-04 14:05+01:00", notes="by fax"
        ),
        today=today,
    )
    assert made.person == Person("Erika Mustermann", ("E. Mustermann",), ("0042",))
    assert (made.received, made.time) == (date(2024, 11, 4), "14:05+01:00")
    assert (made.channel, made.ground, made.country, made.notes) == ("e-mail", "d", "DE", "by fax")
    assert made.identity == Identity(date(2024, 11, 5), "reply from the address on file")


def test_identity_country_and_notes_may_be_missing(write, today: date) -> None:
    made = read_request(write(identity=None, country=None), today=today)
    assert (made.identity, made.country, made.notes) == (None, "", "")


def test_norway_and_days_without_quotes(tmp_path: Path, today: date) -> None:
    path = tmp_path / "request.yaml"
    path.write_text("received: 2024-11-04\nchannel: letter\nground: a\nperson: {name: Erika}\ncountry: NO\n")
    made = read_request(path, today=today)
    assert (made.received, made.country) == (date(2024, 11, 4), "NO")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"received": None}, "received: it is missing; give the day of receipt"),
        ({"received": "2024-11-30"}, "received: 2024-11-30 is in the future"),
        ({"received": "2999-11-30 10:00"}, "is in the future"),
        ({"received": "04.11.2024"}, "received: '04.11.2024' is not a day as YYYY-MM-DD"),
        ({"received": "1024-11-04"}, "before the GDPR applied"),
        ({"received": 20241104}, "received: 20241104 is not a day"),
        ({"channel": "owl"}, "channel: 'owl' is unknown; choose from e-mail, letter"),
        ({"channel": None}, "channel: it is missing; choose from e-mail"),
        ({"ground": "g"}, "ground: 'g' is unknown; choose from a (the data are no longer necessary"),
        ({"ground": None}, "ground: it is missing"),
        ({"person": None}, "person: it is missing"),
        ({"person": "Erika"}, "person: it must map names to values"),
        ({"person": {"identifiers": ["C-1"]}}, "person.name: it is missing"),
        ({"person": {"name": " "}}, "person.name: it is empty"),
        ({"person": {"name": "Erika", "identifiers": [42]}}, "person.identifiers: it is not text; put it in quotes"),
        ({"person": {"name": "Erika", "mail": "x"}}, "person.mail: there is no such field; choose from name, variants"),
        ({"identity": {"how": "by letter"}}, "identity.verified: it is missing"),
        ({"identity": {"verified": "2024-11-03", "how": "by letter"}}, "2024-11-03 is before receipt"),
        ({"identity": {"verified": "2024-11-30", "how": "by letter"}}, "2024-11-30 is in the future"),
        ({"identity": {"verified": "2024-11-05", "how": "Mrs Mustermann called"}}, "identity.how: it names the person"),
        ({"notes": "c-4711 wrote twice"}, "notes: it names the person or an identifier"),
        ({"country": "Germany"}, "the country 'Germany' is unknown"),
        ({"date": "2024-11-04"}, "date: there is no such field; choose from received"),
    ],
)
def test_one_fault_is_one_sentence(write, today: date, changes: dict, words: str) -> None:
    path = write(**changes)
    said = refused(path, today)
    assert words in said
    assert repr(str(path)) in said
    assert "\n" not in said


def test_all_faults_at_once(write, today: date) -> None:
    path = write(received=None, channel="owl", ground="g", identity={"verified": "2025-01-01", "how": "x"})
    with pytest.raises(UserError) as error:
        read_request(path, today=today, known=lambda person: f"{len(person.identifiers)} known")
    said = str(error.value)
    assert "has 5 faults; nothing was logged" in said
    assert [line.split(":")[0].strip(" -") for line in said.splitlines()[1:]] == [
        "received", "channel", "ground", "identity.verified", "person",
    ]  # fmt: skip


def test_no_error_repeats_the_person(write, today: date) -> None:
    person = {"name": "Erika Mustermann", "identifiers": [4711], "phone": "+49 30 1234"}
    said = refused(write(person=person, notes="Erika Mustermann"), today)
    assert not any(value in said for value in ("Erika", "4711", "1234"))


@pytest.mark.parametrize(
    ("text", "words"),
    [("- a\n", "must map names to values"), ("a: [\n", "not valid YAML"),
     ("a: &a [*a]\n", "the alias *a stands inside its own value"),
     ("#" * (2**20 + 1), "more than 1,048,576 bytes")],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, today: date, text: str, words: str) -> None:
    path = tmp_path / "request.yaml"
    path.write_text(text)
    assert words in refused(path, today)
    assert "cannot be read" in refused(tmp_path / "none.yaml", today)
