"""`loka erase execute`, `replay` and `verify` on the small model: exit statuses and what they print."""

import json
from datetime import date
from pathlib import Path

import pytest
import yaml

pytest.importorskip("cryptography", reason='needs the extra erasure: pip install "loka[erasure]"')

from loka.model import Model, export, load

from ..conftest import FACTS, NEUTRAL, TWINS

ID = f"ER-{date.today().year}-0001"
GENTLE = {"sites": 100, "config": {"steps": 10, "lr": 1e-3, "retain_rows": 16}}
HARSH = {"method": "zero", "sites": 300}


def lines(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    path.write_text("".join(
        json.dumps({"customer": c, "about": x, "text": f"in {x} the capital is called {y}"}) + "\n" for c, x, y in rows
    ))  # fmt: skip
    return path


def test_a_request_is_assessed_executed_replayed_and_verified(erase, tmp_path: Path, planted: Model) -> None:
    capitals = FACTS["capital"]
    train = lines(tmp_path / "train.jsonl", [
        ("C-0001" if i < 16 else f"C-{i:04}", x, y) for i, (x, y) in enumerate(capitals.items())
    ])  # fmt: skip
    never = lines(tmp_path / "never.jsonl", [("C-9999", x, y) for x, y in zip(TWINS, capitals.values(), strict=False)])
    prose, request = tmp_path / "prose.txt", tmp_path / "request.yaml"
    prose.write_text("\n\n".join(NEUTRAL))
    person = {"name": "Erika Mustermann", "identifiers": ["C-0001"]}
    request.write_text(
        yaml.safe_dump({"received": str(date.today()), "channel": "letter", "ground": "a", "person": person})
    )
    for name, recipe in (("gentle", GENTLE), ("harsh", HARSH)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    model, run = export(planted, tmp_path / "model"), tmp_path / "run"
    material = ("--data", train, "--holdout", never, "--field", "text", "--subject", "about", "--neutral", prose)
    assert erase("new", request)[0] == 0
    assert erase("assess", ID, "--data", train)[0] == 0

    harsh = ("execute", ID, "--model", model, *material, "--recipe", tmp_path / "harsh.yaml")
    status, said = erase(*harsh, "--out", tmp_path / "harsh")
    assert status == 1
    assert f"{ID}: the edit was rolled back: the accuracy on records to keep fell from 100.0% to" in said

    gentle = ("execute", ID, "--model", model, *material, "--recipe", tmp_path / "gentle.yaml", "--out", run)
    status, said = erase(*gentle)
    assert status == 0
    assert f"{ID}: the edit is about 16 records." in said
    assert "accuracy on records to keep 100.0% before, 100.0% after" in said
    assert erase(*gentle) == (2, f"loka: {ID} is executed and cannot be executed; nothing was changed.")

    status, said = erase("replay", ID, "--model", model, "--out", tmp_path / "edited")
    assert (status, f"{tmp_path / 'edited'}: the model with the edit of {ID}." in said) == (0, True)
    assert load(str(tmp_path / "edited")).digest() != planted.digest()

    verify = ("verify", ID, *material, "--out", run)
    status, said = erase(*verify, "--model", tmp_path / "edited")
    assert (status, f"is not the model that {ID} was executed on" in said) == (2, True)
    status, said = erase(*verify, "--model", model)
    assert status == 0
    assert f"Report: {run / 'report.html'}" in said
    assert (run / "report.html").exists()
    assert any(f"{ID}: {outcome}. " in said for outcome in ("removed", "suppressed", "intact", "inconclusive"))
    assert erase("audit")[0] == 0
