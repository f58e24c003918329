"""What a file says about an edit is data: it names no path, and asks for no endless work."""

from pathlib import Path

import pytest

from loka import ablate
from loka._util.errors import UserError
from loka.audit.resolve import resolve
from loka.model import Edit, EditRecord, Model

STEPS = {"config": {"steps": 10**9, "every": 25}}


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("rounds", {"folder": "elsewhere"}, r"takes no folder from a file \('elsewhere'\)"),
        ("rounds", STEPS, "cannot have steps = 1000000000; give at most 100,000"),
        ("rounds", {"plan": {"counts": [1] * 101}}, "counts for 101 rounds are too many; give at most 100"),
        ("rounds", {"plan": {"counts": [10**9]}}, "cannot have counts = 1000000000"),
        ("tune", {"config": {"simulated_relearning": {"steps": 10**9}}}, "steps = 1000000000"),
        ("tune", {"config": {"seed": 2**32}}, "cannot have seed = 4294967296; give from 0 to 4,294,967,295"),
        ("resample", {"seed": -1}, "resample cannot have seed = -1"),
        ("lora", {"rank": 10**9}, "lora cannot have rank = 1000000000"),
        ("memit", {"config": {"contexts": 10**9}}, "contexts = 1000000000"),
        ("follow_up", {"first": "rounds", "first_arguments": {"folder": "elsewhere"}}, "rounds takes no folder"),
        ("follow_up", {"first_arguments": {"first": "follow_up"}}, "zero has no argument 'first'"),
        ("follow_up", {"first": "follow_up"}, "a follow-up cannot begin with a follow-up"),
    ],
)
def test_a_file_names_no_path_and_asks_for_no_endless_work(
    method: str, arguments: dict, words: str, planted: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit of such a file is refused before anything is measured, so its control is not run either."""
    monkeypatch.chdir(tmp_path)
    record = EditRecord(method, planted.name, "planted", ("L0.neuron.1", "L0.neuron.2"), arguments)
    Edit((), (), planted.digest(), record).save(tmp_path / "edit.safetensors")
    with pytest.raises(UserError, match=words):
        resolve(planted, tmp_path / "edit.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["edit.safetensors"]


def test_a_caller_may_still_name_a_folder(tmp_path: Path) -> None:
    assert ablate.METHODS["rounds"].read({"folder": tmp_path}) == {"folder": tmp_path}
