"""What the tests of `loka erase` share."""

import sys
from pathlib import Path

import pytest

from loka.cli import main


@pytest.fixture
def erase(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Runs a command on a new register; gives its exit status and what it printed."""
    monkeypatch.setenv("LOKA_REGISTER", str(tmp_path / "register"))
    monkeypatch.setenv("LOKA_REDACTION_KEY", str(tmp_path / "redaction.key"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["loka", "erase", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return int(end.value.code or 0), " ".join((printed.out + printed.err).split())

    return run
