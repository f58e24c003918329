"""What the command line says and how it exits; the real model is not needed for that."""

import sys

import pytest

from loka.cli import main


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


def faults(tmp_path) -> dict[str, list[object]]:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_bytes(b"\x80")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [unclosed\n")
    out = tmp_path / "out"
    return {
        "there is no case 'nosuch'": ["run", "nosuch", "--out", out],
        "not valid YAML (line": ["run", broken, "--out", out],
        "there is no model folder": ["run", "capitals", "--model", "./nowhere", "--out", out],
        "pickled weights only": ["run", "capitals", "--model", pickled, "--out", out],
        "'melt' is no method": ["run", "capitals", "--method", "melt", "--out", out],
        "there is no case 'nowhere'": ["search", "nowhere", "--model", "smollm2", "--out", out],
        "there is no edit file": ["export", tmp_path / "none", "--to", out],
        "is no run folder": ["ablate", tmp_path / "empty"],
        "nothing to report": ["report", tmp_path / "empty"],
        "is no profile": ["run", "capitals", "--profile", "huge", "--out", out],
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
