"""The options of `loka erase execute`, `batch`, `replay` and `verify`, and their exit statuses; no model is run."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

pytest.importorskip("cryptography", reason='needs the extra erasure: pip install "loka[erasure]"')

from loka.ablate import Training
from loka.cli import erase_model
from loka.erasure.earlier import BACK, HOLDS, Recheck
from loka.erasure.material import Material
from loka.erasure.outcome import Execution
from loka.erasure.replay import Restored
from loka.erasure.safeguards import Utility
from loka.erasure.sharding import Member, Sharded
from loka.erasure.shown import Shown

Calls = list[tuple[str, tuple[Any, ...], dict[str, Any]]]
DATA = ("--data", "a.jsonl", "--data", "b.csv", "--holdout", "never.jsonl", "--field", "text", "--earlier", "old.jsonl")
MATERIAL = Material((Path("a.jsonl"), Path("b.csv")), (Path("never.jsonl"),), "text", "", None, (Path("old.jsonl"),))
GOOD, SOME, LITTLE = Utility(0.9, 10.0), Shown(4, 4, {}, {}), Shown(4, 1, {}, {})
BROUGHT_BACK = Recheck("ER-1", BACK, 4, 4, {"recall": 0.5})


def made(**changes: Any) -> Execution:
    values = {"edit": "e", "broken": (), "shown": {"ER-2": (SOME, LITTLE)}, "earlier": ()} | changes
    return Execution(4, 4, result="r", before=GOOD, after=GOOD, **values)


@pytest.fixture
def calls(erase: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """What the commands call, with a register in place and no model."""
    person = {"name": "Erika Mustermann", "identifiers": ["C-0001"]}
    (tmp_path / "request.yaml").write_text(
        yaml.safe_dump({"received": "2024-11-04", "channel": "letter", "ground": "a", "person": person})
    )
    assert erase("new", tmp_path / "request.yaml")[0] == 0
    found: Calls = []

    def spy(module: object, name: str, result: Any) -> None:
        def call(register: object, *given: Any, **options: Any) -> Any:
            found.append((name, given, options))
            return result

        monkeypatch.setattr(module, name, call)

    monkeypatch.setattr(erase_model, "load", lambda name, device: f"{name} on {device}")
    monkeypatch.setattr(erase_model, "due", lambda register, within, out: [f"due within {within}"])
    spy(erase_model.execution, "execute", made())
    spy(erase_model.retraining, "retrain", made(edit="", broken=("it broke",)))
    spy(erase_model.retraining, "accept", made(edit=""))
    shards = (Member(0, "a", "b", made(edit="")), Member(2, "c", "d", None))
    spy(erase_model.sharding, "retrain_shards", Sharded(shards, 7))
    spy(erase_model.replays, "replay", Restored(("ER-1", "ER-2")))
    verdict = SimpleNamespace(outcome="removed")
    recheck = SimpleNamespace(verdict=verdict, plain="Gone. IT CAME BACK.", folder=Path("run"), undone=[BROUGHT_BACK])
    spy(erase_model.verification, "verify", recheck)
    return found


def test_an_edit_a_training_or_one_elsewhere(erase, calls: Calls) -> None:
    plain = ("execute", "ER-2", "--model", "m", *DATA, "--out", "run")
    assert erase(*plain, "--another-model", "--device", "cuda")[0] == 0
    name, given, options = calls.pop()
    assert (name, given) == ("execute", ("ER-2", "m on cuda", MATERIAL, Path("run"), None))
    assert options["another"]
    status, said = erase(*plain, "--base", "b", "--training", "{epochs: 3, lr: 1e-4}")
    assert (status, "ER-2: the training was rolled back: it broke." in said) == (1, True)
    name, (id, model, start, *_), _ = calls.pop()
    assert (name, id, model, start.base) == ("retrain", "ER-2", "m on cpu", "b on cpu")
    assert start.training == Training(epochs=3, lr=1e-4)
    status, said = erase(*plain, "--retrained", "there")
    assert (status, "there: what the model became. Next: loka erase verify ER-2" in said) == (0, True)
    assert calls.pop()[1] == ("ER-2", "m on cpu", "there on cpu", MATERIAL)
    status, said = erase(*plain, "--sisa", "shards")
    assert (status, "run/sisa: the ensemble without 7 records." in said) == (0, True)
    assert "ER-2, shard 0: the training is about 4 records." in said
    assert "ER-2, shard 2: the model knew none of the records, so nothing was measured." in said
    assert calls.pop()[1] == ("ER-2", "m on cpu", Path("shards"), MATERIAL, Path("run"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--base", "b", "--retrained", "c"), "give one of --recipe, --base, --retrained and --sisa"),
        (("--base", "b", "--training", "{epochs: 0}"), "--training cannot have epochs = 0; give 1 or more"),
        (("--base", "b", "--training", "{steps: 3}"), "--training has no 'steps'"),
        (("--recipe", "none"), "neither a recipe nor a YAML file"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_model_is_loaded(erase, calls: Calls, arguments, reason) -> None:
    status, said = erase("execute", "ER-2", "--model", "m", *DATA, "--out", "run", *arguments)
    assert (status, reason in said) == (2, True), said
    assert not calls


def test_data_and_holdout_are_asked_for_but_not_by_replay(erase, calls: Calls) -> None:
    for command in ("execute", "verify"):
        assert erase(command, "ER-2", "--model", "m", "--out", "run", "--data", "a.jsonl")[0] == 2
    assert not calls
    status, said = erase("replay", "ER-1", "--model", "m", "--out", "whole")
    assert (status, "whole: the model with the edit of ER-1 and ER-2." in said) == (0, True)
    assert calls.pop()[1] == ("ER-1", "m on cpu", Path("whole"), None)
    erase("replay", "ER-1", "--model", "m", "--out", "whole", *DATA)
    assert calls.pop()[1][-1] == MATERIAL


def test_a_batch_of_those_that_are_due_or_of_those_that_are_named(erase, calls: Calls, monkeypatch) -> None:
    status, said = erase("batch", "--model", "m", *DATA, "--out", "run", "--within", 9)
    assert (status, "ER-2: the model knew 4 of 4 records, and knows 1 now." in said) == (0, True)
    assert calls.pop()[1][0] == ["due within 9"]
    erase("batch", "ER-3", "ER-2", "ER-3", "--model", "m", *DATA, "--out", "run")
    assert calls.pop()[1][0] == ["ER-3", "ER-2"]
    holds = Recheck("ER-1", HOLDS, 4, 4, {"recall": 0.0})
    undone = made(earlier=(holds, BROUGHT_BACK), broken=("the erasure of ER-1 came back",))
    monkeypatch.setattr(erase_model.execution, "execute", lambda *_, **__: undone)
    status, said = erase("batch", "ER-2", "--model", "m", *DATA, "--out", "run")
    assert status == 1
    assert "The erasure of ER-1 holds" in said
    assert "THE ERASURE OF ER-1 CAME BACK: the model shows 50% of what it took away" in said


def test_an_earlier_erasure_that_came_back_is_exit_status_one(erase, calls: Calls) -> None:
    status, said = erase("verify", "ER-2", "--model", "m", *DATA, "--out", "run", "--retrained", "there")
    assert (status, "ER-2: removed. Gone. IT CAME BACK. Report: run/report.html" in said) == (1, True)
    assert calls.pop()[2]["retrained"] == "there on cpu"
