"""`loka erase`: what the commands print, and their exit statuses."""

import sys
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

pytest.importorskip("cryptography", reason='needs the extra erasure: pip install "loka[erasure]"')

from loka.erasure import Register

ID = f"ER-{date.today().year}-0001"


def request(path: Path, *, days_ago: int = 0, number: int = 0) -> Path:
    received = date.today() - timedelta(days=days_ago)
    person = {"name": "Erika Mustermann", "identifiers": [f"C-{number}"]}
    data = {"received": str(received), "channel": "letter", "ground": "a", "person": person}
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_request_from_the_first_day_to_the_last(erase, tmp_path: Path) -> None:
    file = request(tmp_path / "request.yaml")
    status, said = erase("new", file)
    assert status == 0
    assert said.startswith(f"{ID}: logged as P-")
    assert erase("identify", ID, "--how", "by letter")[0] == 0
    status, said = erase("extend", ID, "--months", 1, "--reason", "many records")
    assert (status, f"{ID}: extended by 1 month. Due on" in said) == (0, True)
    page = tmp_path / "register.html"
    status, said = erase("status", "--html", page)
    assert status == 0
    assert ID in said
    assert ID in page.read_text()
    assert erase("rotate")[0] == 0
    assert erase("refuse", ID, "--reason", "a claim is pending")[0] == 0
    assert erase("purge") == (0, f"Persons deleted: {ID}.")
    assert erase("close", ID, "--reason", "told")[0] == 0
    assert erase("purge", "--keep-years", 1) == (0, "Persons deleted: none. Requests deleted: none.")
    status, said = erase("audit")
    assert status == 0
    assert said.startswith("Entries of the trail: 8. None was touched. The hash of the last: ")


def test_an_overdue_request_is_status_one(erase, tmp_path: Path) -> None:
    assert erase("new", request(tmp_path / "late.yaml", days_ago=60, number=1))[0] == 0
    assert erase("new", request(tmp_path / "fresh.yaml", number=2))[0] == 0
    (late, fresh) = [r.id for r in sorted(Register(tmp_path / "register").requests(), key=lambda r: r.due)]
    status, said = erase("status")
    assert status == 1
    assert said.endswith(f"overdue: {late}")
    assert said.index(late) < said.index(fresh)
    status, said = erase("extend", late, "--reason", "many records")
    assert (status, "the first month ended on" in said) == (2, True)
    assert erase("close", late, "--reason", "answered")[0] == 0
    assert erase("status")[0] == 0


def test_a_touched_trail_is_status_one(erase, tmp_path: Path) -> None:
    erase("new", request(tmp_path / "request.yaml"))
    with Register(tmp_path / "register") as register, register.database.transaction() as db:
        db.execute("DROP TRIGGER trail_unchanged")
        db.execute("UPDATE trail SET at = '2020-01-01'")
    status, said = erase("audit")
    assert status == 1
    assert "the trail was touched: entry 1 was touched: its signature does not fit" in said


@pytest.mark.parametrize(
    "arguments",
    [("status",), ("audit",), ("purge",), ("rotate",), ("close", ID, "--reason", "x"), ("new", "none.yaml")],
)
def test_faults_are_status_two_and_make_nothing(erase, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    status, said = erase(*arguments)
    assert status == 2
    assert said.startswith("loka: ")
    assert not list(tmp_path.glob("register*"))


def test_where_the_extra_is_missing_the_error_says_what_to_install(erase, tmp_path: Path, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    status, said = erase("new", request(tmp_path / "request.yaml"))
    assert status == 2
    assert "pip install 'loka[erasure]'" in said


def test_a_method_is_chosen_and_overruled(erase, tmp_path: Path) -> None:
    erase("new", request(tmp_path / "request.yaml"))
    status, said = erase("choose", ID)
    assert (status, "neither --impact nor --records is given" in said) == (2, True)
    status, said = erase("choose", ID, "--records", 12)
    assert (status, f"{ID}: ascent, by the rule 'all else'." in said) == (0, True)
    assert erase("choose", ID, "--records", 12)[0] == 2
    status, said = erase("choose", ID, "--records", 12, "--method", "exclude", "--reason", "the model is retired soon")
    assert (status, f"{ID}: exclude, instead of ascent." in said) == (0, True)


def test_the_impact_that_was_kept_is_used(erase, tmp_path: Path) -> None:
    pytest.importorskip("fpdf", reason='needs the extra erasure: pip install "loka[erasure]"')
    erase("new", request(tmp_path / "request.yaml", number=4711))
    data = tmp_path / "train.csv"
    data.write_text("text\n" + "nothing here\n" * 30 + "Erika Mustermann\n" * 2)
    assert erase("assess", ID, "--data", data)[0] == 0
    assert erase("choose", ID)[0] == 0
    assert erase("document", ID, "--out", tmp_path / "out")[0] == 0
    assert "32 records in 1 training file were searched. 2 count as" in (tmp_path / "out" / "report.html").read_text()


def test_documents_are_written(erase, tmp_path: Path) -> None:
    pytest.importorskip("fpdf", reason='needs the extra erasure: pip install "loka[erasure]"')
    erase("new", request(tmp_path / "request.yaml"))
    status, said = erase("document", ID, "--out", tmp_path / "out")
    assert status == 0
    assert f"{tmp_path / 'out' / 'report.html'} (also .pdf and .json)" in said
    assert (tmp_path / "out" / "report.pdf").read_bytes().startswith(b"%PDF")
    assert erase("document", ID, "--out", tmp_path / "out", "--verdict", tmp_path / "none.json")[0] == 2
    assert erase("audit")[0] == 0
