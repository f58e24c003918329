"""Which records are taken for a person's, by which rule, and which are not."""

import sys
from pathlib import Path

import pytest

from loka._util.errors import UserError
from loka.erasure import RULES, Matcher, Person, Record, find

MARTA = Person("Marta Marchbank", ("Marta Brandow", "田中真理"), ("C-0001", "marta.m@example.org", "+49 170 1234567"))


def record(*texts: str, row: int = 1, others: tuple[str, ...] = ()) -> Record:
    return Record(Path("a.jsonl"), row, texts, others, b"")


def rule(person: Person, *texts: str) -> str | None:
    found = Matcher(person).match(record(*texts))
    return found and found.rule.name


BY_RULE = {
    "email": ("marta.m@example.org", "<MARTA.M@EXAMPLE.ORG>", "marta.m (at) example.org", "marta.m+shop@example.org",
              "marta.m&#64;example.org", "mailto:marta.m@example.org."),
    "number": ("C-0001", "customer c0001.", "C 0001", "No. C/0001, paid", "\uff23\uff0d\uff10\uff10\uff10\uff11"),
    "phone": ("+49 170 1234567", "0170/1234567", "0049 (170) 123-45-67", "call 0170 1234567 2024"),
    "name": ("Marta Marchbank", "MARTA MARCHBANK'S bill", "Márta Marchbänk", "Marta\nMarchbank", "Marta von Marchbank",
             "Marta Marchbank\u00ads", "Mar\u00adta March\u200bbank", "M&aacute;rta Marchbank", "Marta March-\nbank",
             "Marta March bank", "Dr. Marta Marchbank", "Marta Brandow", "昨日田中真理さん", "\uff2darta Marchbank",
             "marta_marchbank@other.org"),
    "reversed": ("Marchbank, Marta", "MARCHBANK Marta", "March bank, Marta"),
    "middle": ("Marta K. Marchbank", "Marta Elisabeth Rose Marchbank"),
    "joined": ("MartaMarchbank", "@martamarchbank", "marchbankmarta"),
    "scanned": ("rnarta Marchbank", "Marta Marchb4nk"),
    "misspelt": ("Mrata Marchbank", "Marta Marchbnak", "Marta Machbank", "Marta Marchhbank", "Maria Marchbank"),
    "initial": ("M. Marchbank", "Marchbank, M.", "M Marchbank", "M. E. Marchbank"),
    "twice misspelt": ("Mrata Marchbnak", "Marta Mrachbnak"),
    "misspelt initial": ("M. Marchbnak",),
    "titled": ("Mrs Marchbank", "Frau Marchbank"),
    "family": ("Petra Marchbank", "the Marchbank claim", "Marta, a friend of Peter Marchbank"),
    "namesake": ("Marta Marchbank, C-0002",),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BY_RULE.items() for text in texts])
def test_each_way_to_mention_a_person_has_its_rule(name: str, text: str) -> None:
    assert rule(MARTA, f"Yesterday {text} in the town") == name


@pytest.mark.parametrize(
    "text",
    ["C-00010", "ABC-0001", "C-0002", "C-1000-1", "xmarta.m@example.org", "marta.m@example.org.uk", "0170 1234568",
     "11701234567890123", "Marta Brand", "Marta Weber", "Martin", "Marta", "the marchbankers", "a bank in March",
     "Rosa Mark", ""],
)  # fmt: skip
def test_what_is_not_the_person(text: str) -> None:
    assert rule(MARTA, text) is None


OTHER_NAMES = [
    ("Anna-Lena Müller-Schmidt", "Annalena Mueller-Schmidt", "name"),
    ("Anna-Lena Müller-Schmidt", "Muller Schmidt, Anna Lena", "reversed"),
    ("Anna-Lena Müller-Schmidt", "Anna Müller", "partial"),
    ("Mueller, Anna", "Anna Müller", "name"),
    ("Seán O'Brien", "Sean OBrien", "name"),
    ("Seán O'Brien", "Sean O\u2019Brien", "name"),
    ("Seán O'Brien", "O'Brien", "family"),
    ("Ana María de la Cruz Ortega", "Ana de la Cruz Ortega", "name"),
    ("Ana María de la Cruz Ortega", "Ana Cruz", "partial"),
    ("Ayşe Y\u0131lmaz", "AYŞE YILMAZ", "name"),
    ("Иван Петров", "ПЕТРОВ, ИВАН", "reversed"),
    ("Sukarno", "Sukarno said", "single"),
    ("Li Na", "Li Na", "name"),
    ("Li Na", "Lia Na", None),
    ("Anna Stein", "a Stein", "family"),
    ("Anna Stein", "A. Stein", "initial"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), OTHER_NAMES)
def test_names_of_other_forms(name: str, text: str, expected: str | None) -> None:
    assert rule(Person(name), text) == expected


def test_names_in_fields_of_their_own() -> None:
    apart = ("Marta", "a long text that stands between", "Marchbank")
    assert rule(MARTA, *apart) == "fields"
    assert rule(Person("Vincent O'Brien"), "Vincent", "a long text that stands between", "O'Brien") == "fields"
    assert rule(MARTA, "Marta is", "a long text that stands between", "Marchbank") == "family"


def test_a_long_text_with_many_names_is_one_hit() -> None:
    said = "Marta paid. " * 20_000 + "The bill came late. " + "Peter Marchbank wrote. " * 20_000
    assert rule(MARTA, said) == "family"
    assert rule(MARTA, said + "Marta Marchbank") == "name"


def test_numbers_and_keys_are_searched_too() -> None:
    person = Person("Marta Marchbank", (), ("104233",))
    matcher = Matcher(person)
    assert matcher.match(record("paid", others=("104233",))) is not None
    assert matcher.match(record("paid", others=("Marta Marchbank",))) is not None
    assert matcher.match(record("paid", others=("1042330",))) is None


def test_a_name_that_others_have_is_no_misspelling() -> None:
    said = [
        "Maria Marchbank paid",
        "Mrata Marchbank paid",
        *[f"Maria {name} paid" for name in ("Ott", "Farrow", "Lind")],
    ]
    said += ["Maria Marchbank, M. Marchbank", "Marai Marchbank and Mrs Marchbank"]
    said += [f"Marai {name} paid" for name in ("Ott", "Farrow", "Lind")]
    found = list(find(MARTA, (record(text, row=i) for i, text in enumerate(said))))
    assert [(hit.row, hit.rule) for hit in found] == [(0, "similar"), (1, "misspelt"), (5, "initial"), (6, "titled")]
    assert found[0].reason == RULES["similar"].reason


def test_confidence_falls_from_identifiers_to_namesakes() -> None:
    order = ["number", "name", "scanned", "misspelt", "initial", "twice misspelt", "namesake", "family"]
    assert [RULES[n].confidence for n in order] == sorted((RULES[n].confidence for n in order), reverse=True)
    assert all(0 < r.confidence <= 1 for r in RULES.values())


@pytest.mark.parametrize(
    ("person", "message"),
    [
        (Person(""), "without a name and without identifiers"),
        (Person("123"), "the name '123' has no letters"),
        (Person("Ann Lee", (), ("7",)), "the identifier '7' cannot be searched for; give .* 3 to 34 letters"),
        (Person("Ann Lee", (), ("Ann",)), "the identifier 'Ann' cannot be searched for"),
    ],
)
def test_a_person_who_cannot_be_searched_for(person: Person, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Matcher(person)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    with pytest.raises(UserError, match=r"need more packages .*rapidfuzz.*; run pip install 'loka\[erasure\]'"):
        Matcher(MARTA)
