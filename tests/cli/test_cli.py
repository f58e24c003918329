"""The messages and exit statuses of the command line; these tests need no real model."""

import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from loka import knowledge
from loka.cli import main, show
from loka.locate import Localization, LocalizationRecord
from loka.locate.contrast import contrast
from loka.locate.localization import COLUMNS
from loka.pipeline.recipe import Recipe, recipes


def loka(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["loka", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_lists_cases_and_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert loka(monkeypatch, "cases") == 0
    assert loka(monkeypatch, "models") == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("capitals", "elements", "authors", "smollm2"))


def test_lists_and_prints_recipes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    assert loka(monkeypatch, "recipes") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in recipes())
    assert loka(monkeypatch, "recipes", "thorough") == 0
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out)
    assert Recipe.load(path) == Recipe.load("thorough")


def faults(tmp_path) -> dict[str, list[object]]:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_bytes(b"\x80")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [unclosed\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("metod: tune\n")
    out = tmp_path / "out"
    return {
        "there is no case 'nosuch'": ["run", "nosuch", "--out", out],
        "not valid YAML (line": ["run", broken, "--out", out],
        "does not exist; give an existing folder": ["run", "capitals", "--model", "./nowhere", "--out", out],
        "pickled weights only": ["run", "capitals", "--model", pickled, "--out", out],
        "'melt' is neither a recipe nor a YAML file": ["run", "capitals", "--recipe", "melt", "--out", out],
        "'slow' is neither a recipe nor a YAML file": ["recipes", "slow"],
        "a recipe has no 'metod'": ["search", "capitals", "--recipe", recipe, "--out", out],
        "there is no case 'nowhere'": ["search", "nowhere", "--model", "smollm2", "--out", out],
        "there is no edit file": ["export", tmp_path / "none", "--to", out],
        "is not a run folder": ["ablate", tmp_path / "empty"],
        "nothing to report": ["report", tmp_path / "empty"],
        "is not a locator; choose one of attribution": ["locate", "capitals", "--method", "magic", "--out", out],
        "is not a part of a model": ["locate", "capitals", "--part", "brain", "--out", out],
        "is not a profile": ["run", "capitals", "--profile", "huge", "--out", out],
        "'half' is not a number type for weights": ["run", "capitals", "--dtype", "half", "--out", out],
        "integrated_gradients runs in one process": ["locate", "capitals", "--workers", 2, "--out", out],
        "--ray-resource 'H200' is not NAME=AMOUNT": ["run", "capitals", "--ray-resource", "H200", "--out", out],
        "resources by name belong to a Ray cluster": ["search", "capitals", "--ray-resource", "H200=1", "--out", out],
    }


def test_faulty_input_is_one_sentence_and_status_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    for words, arguments in faults(tmp_path).items():
        assert loka(monkeypatch, *arguments) == 2, arguments
        said = " ".join(capsys.readouterr().err.split())
        assert words in said, said
        assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_what_locating_prints() -> None:
    """Best sites with intervals, whether any stands out, and what is left without them beside the controls."""
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 0.1, (24, 3, 100))
    raw[:12, 1, 7] += 0.6
    found = contrast({"neuron": raw}, np.ones(24), n_forget=12, record=LocalizationRecord("by hand"))
    out = Console(width=120, record=True, file=StringIO())
    out.print(show.best_sites(found, "neuron", 3))
    left = pd.DataFrame({"sites": [0, 1], "forget": [1.0, 0.25], "same": [1.0, 0.9], "other": [None, None]})
    out.print(show.what_is_left(left.assign(name=["untouched", "all_layers"]).set_index("name")))
    said = out.export_text()
    assert "1 of 300 stand out" in said
    row = found.frame.query("layer == 1 and index == 7").iloc[0]
    line = next(x for x in said.splitlines() if "L1.neuron.7 " in x)
    assert f"{row['score']:+.4f}" in line
    assert f"{row['low']:+.4f} to {row['high']:+.4f}" in line
    assert next(x for x in said.splitlines() if "all layers" in x).split()[-6:] == ["25%", "│", "90%", "│", "-", "│"]


@pytest.mark.parametrize("width", [80, 50])
def test_the_names_of_sites_are_whole_in_a_narrow_terminal(width: int) -> None:
    numbers = dict.fromkeys(("score", "low", "high", "frequency", "q", "forget", "retain", "raw"), -1.2345)
    row = {"layer": 11, "part": "neuron", "index": 3071, "position": None, "role": None, **numbers}
    found = Localization(pd.DataFrame([row], columns=list(COLUMNS)), LocalizationRecord("by hand"))
    out = Console(width=width, record=True, file=StringIO())
    out.print(show.best_sites(found, "neuron", 1))
    said = out.export_text()
    assert "L11.neuron.3071 " in said
    assert "…" not in said


def test_ctrl_c_says_that_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(knowledge, "cases", stop)
    assert loka(monkeypatch, "cases") == 130
    assert "The same command goes on where this one ended" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "command",
    [
        ["run", "capitals", "--out"], ["locate", "capitals", "--out"], ["search", "capitals", "--out"],
        ["plant", "--out"],
        ["verify", "capitals", "--before", "smollm2", "--after", "e.safetensors", "--out"],
    ],
)  # fmt: skip
def test_an_out_that_cannot_be_made_is_refused_before_a_model_is_loaded(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        pytest.fail("a model was loaded")

    for module in ("loka.cli.where", "loka.pipeline.run"):
        monkeypatch.setattr(sys.modules[module], "load", fail)
    (tmp_path / "file").write_text("")
    assert loka(monkeypatch, *command, tmp_path / "file" / "run") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Not a directory" in said
    assert "Move what is there, or choose another name" in said
