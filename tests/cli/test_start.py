"""What a command imports before it does anything: `loka erase` mostly needs no model library."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason='needs the extra erasure: pip install "loka[erasure]"')

from loka.erasure import Register

HEAVY = ("torch", "transformers", "transformer_lens", "sklearn", "scipy", "pandas", "matplotlib")
RUN = """
import json, sys
from loka.cli import main
said = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["loka", *arguments]
    try:
        main()
    except SystemExit as end:
        said.append(end.code or 0)
print(json.dumps([said, sorted(name for name in sys.modules if "." not in name)]))
"""


def modules_after(*commands: list[str], register: Path) -> tuple[list[int], list[str]]:
    """The exit statuses of commands in a fresh process, and the packages that it has imported then."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN, json.dumps(commands)],
        env=os.environ | {"LOKA_REGISTER": str(register)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    statuses, names = json.loads(done.stdout.splitlines()[-1])
    return statuses, names


def test_commands_about_requests_and_data_do_without_model_libraries(tmp_path: Path) -> None:
    Register(tmp_path / "register", create=True).close()
    file, data = tmp_path / "request.yaml", tmp_path / "train.jsonl"
    data.write_text('"Erika Mustermann"\n')
    person = {"name": "Erika Mustermann", "identifiers": ["C-4711"]}
    file.write_text(json.dumps({"received": "2024-11-04", "channel": "letter", "ground": "a", "person": person}))
    id = "ER-2024-0001"
    statuses, names = modules_after(
        ["erase", "status"], ["erase", "new", str(file)], ["erase", "assess", id, "--data", str(data)],
        ["erase", "confirm", id, "--yes", "1"], ["erase", "exclude", "--add", id, "--data", str(data)],
        ["erase", "close", id, "--reason", "done"], ["erase", "audit"],
        register=tmp_path / "register",
    )  # fmt: skip
    assert statuses == [0] * 7
    assert "cryptography" in names
    assert not set(HEAVY) & set(names)


def test_all_commands_are_listed_and_found(erase, tmp_path: Path) -> None:
    status, said = erase("--help")
    assert status == 0
    assert all(f" {name} " in said for name in ("new", "assess", "execute", "replay", "verify", "audit"))
    status, said = erase("verif")
    assert (status, "No such command 'verif'" in said, "verify" in said) == (2, True, True)
    assert erase("verify", "--help")[0] == 0
