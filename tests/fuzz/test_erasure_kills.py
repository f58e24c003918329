"""Commands of `loka erase` killed for good: each can be given again, no entry is lost, and none is half written.

LOKA_KILLS sets the number of kills, spread over all commands; the normal suite kills `exclude` alone, a few times.
"""

import json
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

pytest.importorskip("cryptography", reason='needs the extra erasure: pip install "loka[erasure]"')
pytest.importorskip("holidays", reason='needs the extra erasure: pip install "loka[erasure]"')

from loka._util.files import digest
from loka.cli import main
from loka.erasure import Register, assessment, steps
from loka.erasure.change import Change
from loka.model import Model, export

from ..erasure.conftest import TODAY, Claims, content

KILLS = int(os.environ.get("LOKA_KILLS", "0"))
FEW = 3
ROWS = 600  # of training data, so that filtering takes about half a second
IDS = ("ER-2024-0001", "ER-2024-0002")
RECIPE = {"sites": 200, "locator": "attribution", "config": {"steps": 40, "lr": 3e-3, "retain_rows": 16}}
EDIT = "{material} --model {model} --recipe {recipe} --out {out}"


@dataclass(frozen=True)
class Command:
    """A command, the kinds of entries that it leaves, and whether these may come again: not with an edit."""

    line: str
    entries: tuple[str, ...]
    again: bool = True


ALWAYS = ("add", "exclude")  # the others only with LOKA_KILLS
COMMANDS = {
    "assess": Command("assess {id} --data {data}", ("assessed",)),
    "document": Command("document {id} --out {out}-documents", ("documented",)),
    "add": Command("exclude --add {id} --data {data}", ("listed", "excluded")),
    "exclude": Command("exclude --data {data} --out {out}.jsonl", ("held back",)),
    "execute": Command(f"execute {{id}} {EDIT}", ("executing", "executed"), again=False),
    "batch": Command(f"batch {' '.join(IDS)} {EDIT}", ("executing", "executed"), again=False),
}

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, so that each process need not import torch again"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def start(line: str, before: Callable[[], None] | None = None) -> multiprocessing.process.BaseProcess:
    """Run a command in a process of its own, after `before`."""

    def work() -> None:
        sys.argv = ["loka", "erase", *line.split()]
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        if before:
            before()
        main()

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def finish(line: str) -> int:
    process = start(line)
    process.join()
    return process.exitcode or 0


@pytest.fixture
def places(tmp_path: Path, taught: Model, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A register with two assessed requests; the first person is on the exclusion list."""
    monkeypatch.setenv("LOKA_REGISTER", str(tmp_path / "register"))
    monkeypatch.setenv("LOKA_REDACTION_KEY", str(tmp_path / "redaction.key"))
    material = Claims(tmp_path, people=(8, 7)).write()
    with material.data[0].open("a") as file:
        file.writelines(json.dumps({"customer": "x", "about": "y", "text": f"z {n}"}) + "\n" for n in range(ROWS))
    with Register(create=True) as register:
        for number, id in enumerate(IDS, 1):
            file_ = tmp_path / "request.yaml"
            person = {"name": "Erika Mustermann", "identifiers": [f"C-{number:04}"]}
            file_.write_text(yaml.safe_dump(content(person=person)))
            steps.receive(register, file_, today=TODAY)
            assessment.assess(register, id, material.data)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    options = f"--data {material.data[0]} --holdout {material.holdout[0]} --field text --subject about"
    return {
        "data": str(material.data[0]), "id": IDS[0], "out": str(tmp_path / "run"), "recipe": f"{tmp_path}/recipe.yaml",
        "material": f"{options} --neutral {material.neutral}", "model": str(export(taught, tmp_path / "model")),
    }  # fmt: skip


def kinds() -> list[str]:
    with Register() as register:
        assert register.verify() is None
        return [entry.kind for entry in register.entries()]


@pytest.mark.parametrize("name", COMMANDS if KILLS else ALWAYS)
def test_a_killed_command_can_be_given_again(name: str, places: dict[str, str], tmp_path: Path) -> None:
    command, rng, before = COMMANDS[name], random.Random(name), len(kinds())
    line, seconds = command.line.format(**places), 1.5 if command.again else 8.0
    if name == "exclude":
        assert finish(COMMANDS["add"].line.format(**places)) == 0
    for _ in range(-(-KILLS // len(COMMANDS)) or FEW):
        process = start(line)
        process.join(rng.uniform(0, seconds))
        process.kill()
        process.join()
        kinds()  # the trail is whole after each kill
    ended = {"exclude": Path(f"{places['out']}.jsonl").exists(), "execute": "executed" in kinds()}
    if not ended.get(name, kinds().count("executed") == len(IDS)):
        assert finish(line) == 0
    found = kinds()[before:]
    assert set(command.entries) <= set(found)
    if not command.again:
        people = 2 if name == "batch" else 1
        assert [found.count(kind) for kind in command.entries] == [people] * 2
    CHECKS.get(name, lambda _: None)(places)
    assert not list(tmp_path.rglob(".loka-*")), "leftovers of killed processes"


@pytest.mark.parametrize("moment", ["before the entry", "after the entry"])
def test_filtered_data_never_lie_there_without_an_entry(moment: str, places: dict[str, str], monkeypatch) -> None:
    assert finish(COMMANDS["add"].line.format(**places)) == 0
    line, target = COMMANDS["exclude"].line.format(**places), Path(f"{places['out']}.jsonl")
    rename: Callable[..., None] = os.replace

    def die(*given: object, **_: object) -> None:
        if moment == "before the entry" or given[1] == target:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*given)

    def before() -> None:  # in the child: the last moment before the entry, and the last before the file appears
        where, name = (Change, "log") if moment == "before the entry" else (os, "replace")
        monkeypatch.setattr(where, name, die)

    process = start(line, before)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not target.exists()
    assert ("held back" in kinds()) == (moment == "after the entry")
    assert finish(line) == 0
    _check_filtered(places)


def _check_filtered(places: dict[str, str]) -> None:
    """The target has all records but the person's, and the last entry of its kind tells of just these bytes."""
    target = Path(f"{places['out']}.jsonl")
    lines = Path(places["data"]).read_text().splitlines(keepends=True)
    assert target.read_text() == "".join(line for line in lines if '"C-0001"' not in line)
    with Register() as register:
        assert register.payloads(kind="held back")[-1]["files"] == [[digest(places["data"]), digest(target)]]


def _check_documents(places: dict[str, str]) -> None:
    """The last entry of its kind tells of just the files that are there."""
    files = {path.name: digest(path) for path in Path(f"{places['out']}-documents").iterdir()}
    with Register() as register:
        assert register.payloads(kind="documented")[-1]["files"] == files


def _check_assessed(places: dict[str, str]) -> None:
    """The impact is the one that the entry tells of, or it would be refused."""
    with Register() as register:
        assert assessment.impact_of(register, places["id"]).found().records


CHECKS = {"exclude": _check_filtered, "document": _check_documents, "assess": _check_assessed}
