"""SISA: which shards are trained again, and that the result is that of an ensemble that never had the records."""

import json
from pathlib import Path

import pytest

from loka._util.errors import UserError
from loka._util.files import digest
from loka.ablate import Sisa, Training
from loka.erasure import Register, assessment, choice, sharding, steps
from loka.erasure.erased import erasures, executed
from loka.erasure.material import Material
from loka.erasure.sharding import retrain_shards
from loka.model import Model, load

from .conftest import TODAY, Claims

HOW = Training(epochs=6, rows=8, lr=1e-3)


@pytest.fixture(autouse=True)
def loose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that were trained on 44 sentences alone differ by more than an edit may change."""
    monkeypatch.setattr("loka.erasure.safeguards.PERPLEXITY_RISE", 0.2)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    material = Claims(tmp_path_factory.mktemp("claims")).write()
    return [json.loads(line)["text"] for line in material.data[0].read_text().splitlines()]


@pytest.fixture(scope="module")
def ensemble(untaught: Model, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    Sisa(untaught, texts, folder, shards=2, slices=2, training=HOW).train()
    return folder


def choose(register: Register, id: str) -> str:
    choice.choose(register, id, choice.Situation(16), method="sisa", reason="the shards are at hand", today=TODAY)
    return id


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): digest(path) for path in folder.rglob("*") if path.is_file()}


def test_the_shards_that_learned_the_records_are_trained_again_without_them(
    register: Register, assessed: str, material: Material, texts: list[str], ensemble: Path, untaught: Model,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    id, out, before = choose(register, assessed), tmp_path / "run", contents(ensemble)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sharding, "_judged", _killed)
        retrain_shards(register, id, untaught, ensemble, material, out)
    made = retrain_shards(register, id, untaught, ensemble, material, out)
    assert (made.deleted, made.broken, [m.shard for m in made.members]) == (16, (), [0, 1])
    assert contents(ensemble) == before

    never = Sisa(
        untaught, texts, tmp_path / "never", shards=2, slices=2, training=HOW, without=range(16)
    )  # fmt: skip
    never.train()
    for member in made.members:
        with never.member(member.shard) as model:
            assert member.result == model.digest()
        assert load(str(out / f"shard-{member.shard}" / "model")).digest() == member.result != member.model
        assert member.made is not None
        first, last = member.made.shown[id]
        assert first.known > last.known == 0

    kinds = [entry.kind for entry in register.entries()[-2:]]
    assert kinds == ["executing", "executed"]
    said = register.payloads(id, kind="executed")[0]
    assert (said["deleted"], said["to"]) == (16, digest(out / "sisa" / "sisa.json"))
    assert [(e.requests, e.result) for e in erasures(register)] == [((id,), m.result) for m in made.members]
    assert executed(register, id).result == made.members[0].result
    assert register.verify() is None

    later = later_request(register, tmp_path, material)
    with pytest.raises(UserError, match="lacks an earlier deletion .* give the folder 'sisa' that the last execution"):
        retrain_shards(register, later, untaught, ensemble, material, tmp_path / "later")
    assert retrain_shards(register, later, untaught, out / "sisa", material, tmp_path / "later").deleted == 1


def later_request(register: Register, folder: Path, material: Material) -> str:
    person = {"name": "Jonas Kaltenbrunn", "identifiers": ["C-0020"]}
    path = folder / "later.yaml"
    path.write_text(json.dumps({"received": str(TODAY), "channel": "letter", "ground": "a", "person": person}))
    id = steps.receive(register, path, today=TODAY).id
    assessment.assess(register, id, material.data)
    return choose(register, id)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_shards_that_break_a_safeguard_are_rolled_back(
    register: Register, assessed: str, material: Material, ensemble: Path, untaught: Model, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("loka.erasure.safeguards.PERPLEXITY_RISE", 0.0001)
    made = retrain_shards(register, choose(register, assessed), untaught, ensemble, material, tmp_path / "run")
    assert made.broken[0].startswith("shard 0: the perplexity of neutral text rose from")
    assert register.entries()[-1].kind == "rolled back"
    assert register.request(assessed).status == "chosen"
    assert sorted(p.name for p in (tmp_path / "run").rglob("*") if p.is_dir()) == [
        "before",
        "before",
        "shard-0",
        "shard-1",
    ]
    assert erasures(register) == []


def test_what_does_not_fit_is_refused(
    register: Register, assessed: str, material: Material, ensemble: Path, untaught: Model, planted: Model, tmp_path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError, match="no method was chosen"):
        retrain_shards(register, assessed, untaught, ensemble, material, out)
    choose(register, assessed)
    with pytest.raises(UserError, match="cannot be read .*; name the folder of a SISA ensemble"):
        retrain_shards(register, assessed, untaught, tmp_path, material, out)
    with pytest.raises(UserError, match="belongs to another model or has other settings"):
        retrain_shards(register, assessed, planted, ensemble, material, out)
    assert not out.exists()
