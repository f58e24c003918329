"""Places that the user may not write to: one sentence before a model is read. Root may write anywhere, others ask."""

import multiprocessing
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loka.cli import commands, main

assert commands  # imported here, so that not every child imports torch
COMMANDS = {
    "run": "run {case} --model {gone} --out {out}",
    "locate": "locate {case} --model {gone} --out {out}",
    "plant": "plant --case {case} --model {gone} --out {out}",
    "search": "search {case} --model {gone} --out {out}",
    "verify": "verify {case} --before {gone} --after {gone} --out {out}",
    "ablate": "ablate {out}",
    "export": "export {run} --to {out}",
    "execute": "erase execute ER-2024-0001 --model {gone} --data {file} --holdout {file} --out {out}",
    "replay": "erase replay ER-2024-0001 --model {gone} --out {out}",
    "erase": "erase verify ER-2024-0001 --model {gone} --data {file} --holdout {file} --out {out}",
}
ERASURE = {"execute", "replay", "erase"}
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture
def places(files: Any) -> Iterator[dict[str, Path]]:
    """Files that anybody can read, and places that root alone can write to, or see; as what pytest makes is."""
    root = Path(tempfile.mkdtemp())
    found = {name: root / name for name in ("read-only", "hidden", "run", "file", "gone")}
    for name, mode in (("read-only", 0o755), ("hidden", 0o700), ("run", 0o755)):
        found[name].mkdir(mode=mode)
    for name in ("provenance.json", "edit.safetensors"):
        (found["run"] / name).write_text("{}")
    found["file"].write_text("{}")
    found["case"] = files.few().write(root)
    root.chmod(0o755)
    yield found
    shutil.rmtree(root)


def call(line: str) -> int:
    sys.argv = ["loka", *line.split()]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def work(line: str, warm: str, said: Path) -> None:
    """Give the command as nobody. Before that, as root on a place in whose way a file is, so that all is imported."""
    if call(warm) != 2:
        os._exit(3)
    sys.stdout = sys.stderr = said.open("w")
    os.setgroups([])
    os.setgid(pwd.getpwnam("nobody").pw_gid)
    os.setuid(pwd.getpwnam("nobody").pw_uid)
    status = call(line)
    sys.stderr.flush()
    os._exit(status)


def as_nobody(line: str, warm: str, said: Path) -> str:
    """What the command says, which must be a refusal."""
    process = multiprocessing.get_context("fork").Process(target=work, args=(line, warm, said))
    process.start()
    process.join()
    text = " ".join(said.read_text().split())
    assert process.exitcode == 2, text
    return text


@pytest.mark.parametrize("where", ["read-only", "hidden"])
@pytest.mark.parametrize("name", COMMANDS)
def test_where_it_may_not_write(name: str, where: str, places: dict[str, Path], tmp_path: Path) -> None:
    if name in ERASURE:
        pytest.importorskip("cryptography", reason='needs the extra erasure: pip install "loka[erasure]"')
    out = places["run"] if name == "ablate" and where == "read-only" else places[where] / "new"
    line, warm = (COMMANDS[name].format(**places, out=place) for place in (out, places["file"] / "new"))
    text = as_nobody(line, warm, tmp_path / "said")
    assert text.startswith(f"loka: cannot write {places[where] if name == 'export' else out}: Permission denied"), text
    assert text.endswith("Choose a place that you may write to."), text


def test_where_it_may_not_read(places: dict[str, Path], tmp_path: Path) -> None:
    run = places["hidden"] / "run"
    text = as_nobody(
        f"export {run} --to {tmp_path}/new", f"export {places['gone']} --to {tmp_path}/new", tmp_path / "said"
    )
    assert text == f"loka: cannot use {run}/edit.safetensors: Permission denied. Name a place that you may use."
