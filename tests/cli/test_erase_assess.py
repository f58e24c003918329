"""`loka erase assess --model` and what `choose` takes from it, on the small model."""

import json
from datetime import date
from pathlib import Path

import pytest
import yaml

pytest.importorskip("cryptography", reason='needs the extra erasure: pip install "loka[erasure]"')

from loka.erasure import Register
from loka.model import Model, export

from ..conftest import FACTS, TWINS

ID = f"ER-{date.today().year}-0001"
CAPITALS = FACTS["capital"]


def lines(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    path.write_text("".join(
        json.dumps({"customer": c, "about": x, "text": f"in {x} the capital is called {y}"}) + "\n" for c, x, y in rows
    ))  # fmt: skip
    return path


@pytest.fixture
def material(erase, tmp_path: Path) -> tuple[object, ...]:
    """A request of the customer with the first 16 records, and what `assess` is given to ask about these."""
    person, request = {"name": "Erika Mustermann", "identifiers": ["C-0001"]}, tmp_path / "request.yaml"
    request.write_text(
        yaml.safe_dump({"received": str(date.today()), "channel": "letter", "ground": "a", "person": person})
    )
    assert erase("new", request)[0] == 0
    request.unlink()
    train = lines(tmp_path / "train.jsonl", [
        ("C-0001" if i < 16 else f"C-{i:04}", x, y) for i, (x, y) in enumerate(CAPITALS.items())
    ])  # fmt: skip
    never = lines(tmp_path / "never.jsonl", [("C-9999", x, y) for x, y in zip(TWINS, CAPITALS.values(), strict=False)])
    return ("--data", train, "--holdout", never, "--field", "text", "--subject", "about")


def test_the_model_is_asked_beside_the_search_and_the_choice_goes_by_it(
    erase, material: tuple[object, ...], tmp_path: Path, planted: Model
) -> None:
    model, file = export(planted, tmp_path / "model"), tmp_path / "impact.json"
    status, said = erase("assess", ID, *material, "--model", model, "--sample", 12, "--out", file)
    assert status == 0
    assert f"{ID}: 16 of 44 records count as the person's" in said
    assert f"{ID}: The model shows something of the person. The model gives more of the person's records" in said
    assert "asked about 12 of the person's 16 records, about 12 records of others in the training data" in said
    assert "100.0%" in said
    kept = tmp_path / "register" / ID / "impact.json"
    assert kept.read_bytes() == file.read_bytes()
    with Register(tmp_path / "register") as register:
        assert [entry.kind for entry in register.entries()] == ["received", "assessed", "asked"]
    status, said = erase("choose", ID)
    assert status == 0
    assert "What the model shows of the person: something. So it was found when the model was asked." in said
    overruled = ("--method", "located", "--reason", "as advised")
    assert "something. So --shows says" in erase("choose", ID, "--shows", "something", *overruled)[1]
    assert "was asked about other records than now count" in erase("confirm", ID, "--not", 1)[1]
    status, said = erase("choose", ID, *overruled)
    assert (status, "unknown. It was not asked: loka erase assess --model." in said) == (0, True)
    kept.write_text(kept.read_text().replace("false", "true"))
    status, said = erase("choose", ID, *overruled)
    assert (status, "is missing or is not as the trail records it" in said) == (2, True)


def test_faults_are_refused_before_the_search(erase, material: tuple[object, ...], tmp_path: Path) -> None:
    asked = ("--model", tmp_path / "none")
    for arguments, reason in (
        ((*material[:2], *asked), "--model needs --holdout: a model is asked about never-taught records, too"),
        (material, "--holdout needs --model"),
        ((*material[:4], *asked, "--field", "body"), "has no text in a column 'body'"),
        ((*material, *asked, "--sample", 0), "greater than or equal to 1"),
    ):
        status, said = erase("assess", ID, *arguments)
        assert (status, reason in said) == (2, True), said
    with Register(tmp_path / "register") as register:
        assert register.request(ID).status == "received"
    status, said = erase("assess", ID, *material, *asked)  # the search is kept
    assert (status, "none" in said) == (2, True)
    with Register(tmp_path / "register") as register:
        assert register.request(ID).status == "assessed"
