"""The exclusion list: what digests find, what they hide, and a training set without the people on it."""

import hashlib
import hmac
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loka._util.errors import LokaError, UserError
from loka._util.files import digest
from loka.erasure import Exclusion, ExclusionList, Matcher, Person, Record, Screen, exclude, read

KEY = b"sixteen bytes or more"
MARTA = Person("Marta Marchbank", ("Marta Brandow",), ("C-0001", "marta.m@example.org", "+49 170 1234567"))
BEN = Person("Ben Ott", (), ("K-77123",))
CONFIRMED = ("the tall woman from Dunsby", "3 March 2020")
FOUND = {
    "marta.m (at) example.org": "email", "c 0001": "number", "0170/1234567": "phone", "Marta Marchbank": "name",
    "MÁRTA MARCHBANK": "name", "Marchbank, Marta": "reversed", "martamarchbank": "joined", "M. Marchbank": "initial",
    "Mrata Marchbank": "misspelt", "Marta Marchbnak": "misspelt", "Marta Marhbank": "misspelt",
    "Martta Brandow": "misspelt", "rnarta Marchbank": "scanned", "Marta K. Marchbank": "middle",
}  # fmt: skip
KEPT = ("Ben Farrow", "Petra Marchbank", "C-0002", "Marta Weber", "Marta", "paid in full", "", "a bank in March")


def record(*texts: str, others: tuple[str, ...] = ()) -> Record:
    return Record(Path("a.jsonl"), 1, texts, others, b"")


@pytest.fixture
def exclusions() -> ExclusionList:
    return ExclusionList(KEY).add(MARTA, "P-1", [record(*CONFIRMED)]).add(BEN, "P-2")


@pytest.fixture
def screen(exclusions: ExclusionList) -> Screen:
    return exclusions.screen()


@pytest.mark.parametrize(("text", "rule"), FOUND.items())
def test_digests_find_what_clear_names_find(screen: Screen, text: str, rule: str) -> None:
    said = record(f"Yesterday {text} called")
    assert screen.match(said) == {"P-1": rule}
    clear = Matcher(MARTA).match(said)
    assert clear is not None
    assert clear.rule.name == rule


@pytest.mark.parametrize("text", KEPT)
def test_others_stay(screen: Screen, text: str) -> None:
    assert screen.match(record(text)) == {}


def test_a_confirmed_record_is_found_in_any_format(screen: Screen) -> None:
    assert screen.match(record("3 March 2020", " The tall  woman from DUNSBY")) == {"P-1": "record"}
    assert screen.match(record(CONFIRMED[0], "4 March 2020")) == {}


def test_a_record_of_two_people_counts_for_both(screen: Screen) -> None:
    assert screen.match(record("Marta Marchbank and K-77123")) == {"P-1": "name", "P-2": "number"}


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (0.6, ["a@x.org", "Ann Leering", "Ann Leerinq", "A. Leering"]),
        (0.9, ["a@x.org", "Ann Leering"]),
        (1.0, ["a@x.org"]),
    ],
)
def test_least_says_which_rules_hold_back(least: float, expected: list[str]) -> None:
    screen = ExclusionList(KEY).add(Person("Ann Leering", (), ("a@x.org",)), "P", least=least).screen()
    texts = ("a@x.org", "Ann Leering", "Ann Leerinq", "A. Leering", "Ms Leering")
    assert [text for text in texts if screen.match(record(text))] == expected


def test_the_file_holds_digests_alone(exclusions: ExclusionList, tmp_path: Path) -> None:
    path = exclusions.save(tmp_path / "list.json")
    text = path.read_text().lower()
    clear = ("marta", "marchbank", "brandow", "0001", "example", "1234567", "dunsby", KEY.decode(), KEY.hex())
    assert not [word for word in clear if word in text]
    assert KEY.decode() not in repr(exclusions)
    made = hmac.new(KEY, b"number\0c0001", hashlib.sha256).hexdigest()[:24]
    assert made in json.loads(path.read_text())["entries"][0]["identifiers"]
    assert ExclusionList.load(path, KEY) == exclusions


def test_the_number_of_digests_does_not_tell_a_names_length() -> None:
    sizes = {
        tuple(
            len(d) for part in (n.same, n.scanned, n.shortened) for role, d in sorted(part.items()) if role != "whole"
        )
        for name in ("Bo Lind", "Ann Lee", "Leopold Kaltenbrunner")
        for n in ExclusionList(KEY).add(Person(name), "P").entries[0].names
    }
    assert len(sizes) == 1


def test_a_wrong_key_or_a_touched_list_is_refused(exclusions: ExclusionList, tmp_path: Path) -> None:
    path = exclusions.save(tmp_path / "list.json")
    with pytest.raises(UserError, match="the key is not the one that .*list.json' was made with; give that key"):
        ExclusionList.load(path, b"another key of 16 bytes")
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "entries": data["entries"][:1]}))
    with pytest.raises(UserError, match=r"list.json' was changed after it was written; restore it"):
        ExclusionList.load(path, KEY)
    path.write_text(json.dumps({**data, "format": "loka-exclusion-9"}))
    with pytest.raises(UserError, match="is not an exclusion list of the format loka-exclusion-1"):
        ExclusionList.load(path, KEY)
    with pytest.raises(UserError, match="a key of 3 bytes is too short; give 16 random bytes or more"):
        ExclusionList(b"key")


def test_entries_are_replaced_and_taken_out(exclusions: ExclusionList) -> None:
    again = exclusions.add(Person("Other Name"), "P-1")
    assert [e.pseudonym for e in again.entries] == ["P-2", "P-1"]
    assert again.screen().match(record("Marta Marchbank")) == {}
    assert [e.pseudonym for e in exclusions.without("P-1").entries] == ["P-2"]
    with pytest.raises(UserError, match="the exclusion list has no 'P-3'; it has P-1, P-2"):
        exclusions.without("P-3")
    with pytest.raises(UserError, match="least cannot be 2; give a confidence above 0, at most 1"):
        exclusions.add(MARTA, "P-4", least=2)
    for pseudonym in ("", "request of Marchbank", "C-0001"):
        with pytest.raises(UserError, match="is empty or names the person; give a number of the request"):
            exclusions.add(MARTA, pseudonym)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "part").mkdir(parents=True)
    texts = [*FOUND, *KEPT]
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts))
    (folder / "b.csv").write_text("name,note\nMarta Marchbank,x\nAnn,K-77123\nAmy,y\n")
    pq.write_table(pa.table({"text": texts, "n": range(len(texts))}), folder / "part/c.parquet", row_group_size=4)
    (folder / "readme.md").write_text("read me")
    return folder


def test_a_folder_without_the_people_on_the_list(exclusions: ExclusionList, data: Path) -> None:
    target = data.parent / "next"
    found = exclude(exclusions, data, target)
    lines = (target / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == list(KEPT)
    assert (target / "b.csv").read_text() == "name,note\nAmy,y\n"
    n = len(FOUND)
    assert pq.read_table(target / "part/c.parquet").equals(pq.read_table(data / "part/c.parquet").slice(n))
    assert (found.records, found.excluded, found.left) == (2 * (n + len(KEPT)) + 3, 2 * n + 2, 0)
    assert {name: sum(by.values()) for name, by in found.held_back.items()} == {"P-1": 2 * n + 1, "P-2": 1}
    assert found.held_back["P-2"] == {"number": 1}
    assert [(f.source_digest, f.target_digest) for f in found.files][1] == (
        digest(data / "b.csv"), digest(target / "b.csv"),
    )  # fmt: skip
    assert [Path(f).name for f in found.uncopied] == ["readme.md"]
    assert Exclusion.from_json(json.loads(json.dumps(found.to_json()))) == found
    left = [r for path in target.rglob("*.*") if path.is_file() for r in read(path) if Matcher(BEN).match(r)]
    assert left == []


def test_paths_that_name_somebody_on_the_list_get_an_alias(exclusions: ExclusionList, data: Path) -> None:
    (data / "Marta-Marchbank").mkdir()
    (data / "a.jsonl").rename(data / "Marta-Marchbank" / "letters.jsonl")
    (data / "readme.md").rename(data / "M. Marchbank.txt")
    (data / "notes.Marchbank").write_text("notes")
    source, target = data / "Marta-Marchbank" / "letters.jsonl", data.parent / "next"
    found = exclude(exclusions, data, target)
    named = next(file for file in found.files if file.source_digest == digest(source))
    written = target / "Marta-Marchbank" / "letters.jsonl"
    assert (named.source, named.target) == (
        f"file-{digest(source)[:12]}.jsonl", f"file-{digest(written)[:12]}.jsonl",
    )  # fmt: skip
    assert sorted(found.uncopied) == ["uncopied-1.txt", "uncopied-2"]
    assert "marchbank" not in json.dumps(found.to_json()).lower()
    assert str(data / "b.csv") in json.dumps(found.to_json())


def test_one_file_and_an_empty_list(data: Path) -> None:
    found = exclude(ExclusionList(KEY), data / "b.csv", data.parent / "new.csv")
    assert (data.parent / "new.csv").read_bytes() == (data / "b.csv").read_bytes()
    assert (found.records, found.excluded, found.held_back) == (3, 0, {})


def test_what_is_refused_leaves_nothing_behind(exclusions: ExclusionList, data: Path) -> None:
    before = sorted(data.parent.rglob("*"))
    broken = data / "broken.jsonl"
    broken.write_text('{"text": "Ann"}\n{"text": "Mar\n')
    header = data / "header.csv"
    header.write_text("Marta Marchbank,1\nAnn,2\n")
    cases = [
        (broken, "new.jsonl", "line 2 of .*broken.jsonl' cannot be read .*; correct it, or leave such lines out"),
        (header, "new.csv", "line 1 of .*header.csv' is the header, but holds what is to be excluded"),
        (data / "a.jsonl", "data", "data' exists or lies in the training data"),
        (data, "data/inside", "inside' exists or lies in the training data"),
        (data / "a.jsonl", "new.csv", "new.csv' must end as .*a.jsonl' does"),
        (data / "gone.jsonl", "new.jsonl", "there is no file or folder .*gone.jsonl"),
    ]
    for source, target, message in cases:
        with pytest.raises(UserError, match=message):
            exclude(exclusions, source, data.parent / target)
    assert sorted(data.parent.rglob("*")) == sorted([*before, broken, header])
    found = exclude(exclusions, broken, data.parent / "new.jsonl", drop_broken=True)
    assert (found.files[0].broken, found.records) == (1, 1)


def test_a_record_that_is_left_is_a_failure(
    exclusions: ExclusionList, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep_all(source: Path, target: Path, keep: object) -> None:
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr("loka.erasure.exclusion.copy_kept", keep_all)
    with pytest.raises(LokaError, match=f"{len(FOUND)} records are left in .*new.jsonl', so it was not written"):
        exclude(exclusions, data / "a.jsonl", data.parent / "new.jsonl")
    assert not (data.parent / "new.jsonl").exists()
