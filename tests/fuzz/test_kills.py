"""Commands killed for good at random moments: each can be given again, and ends with the files of one left in peace.

LOKA_KILLS sets the number of kills, spread over all commands; the normal suite kills one command a few times.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shlex
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import yaml

from loka import ablate
from loka.cli import main
from loka.knowledge import CaseSpec
from loka.model import Model, Site, export
from loka.pipeline.recipe import Recipe
from loka.verify import Budget, capped

KILLS = int(os.environ.get("LOKA_KILLS", "0"))
FEW = 3
RECIPE = {"method": "tune", "sites": 20, "config": {"steps": 4, "lr": 5e-3, "retain_rows": 16}}
TEACHING = "{steps: 200, lr: 3.0e-3}"
# What a second run writes differently: times, the process, and what shows them.
ASIDE = ("provenance.json", "lock", "report.html")


@dataclass(frozen=True)
class Command:
    """A command on a place `{out}`, and commands that come before it."""

    line: str
    first: tuple[str, ...] = ()
    once: bool = False  # whether it refuses a place that it has finished
    killed: list[float] = field(default_factory=list, compare=False)


COMMANDS = {
    "locate": Command("locate {case} --model {model} --out {out} --no-figures"),
    "ablate": Command("ablate {out} --recipe {recipe}", ("locate {case} --model {model} --out {out} --no-figures",)),
    "sweep": Command("locate {case} --model {model} --out {out} --method sweep --part head --no-figures"),
    "search": Command("search {case} --model {model} --out {out} --recipe {recipe}"),
    "run": Command("run {case} --model {model} --out {out} --recipe {recipe}"),
    "verify": Command("verify {case} --before {model} --after {edit} --out {out}"),
    "export": Command(
        "export {out} --to {out}-model",
        ("locate {case} --model {model} --out {out} --no-figures", "ablate {out} --recipe {recipe}"), once=True,
    ),
    "report": Command("report {out}", ("verify {case} --before {model} --after {edit} --out {out}",)),
    "plant": Command(
        "plant --model {model} --case {every} --out {out} --facts 6 --retain 4 --twins 6 --teaching '{teaching}'",
        once=True,
    ),
}  # fmt: skip


def work(command: list[str]) -> None:
    torch.set_num_threads(1)  # the threads of the process that was forked are gone; waiting for them would never end
    sys.argv = ["loka", *command]
    sys.modules["loka.audit.plan"].CHECKS = capped({"relearn": Budget(4, 1e-3)})  # type: ignore[attr-defined]
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    main()


def start(line: str, places: dict[str, Path], out: Path) -> multiprocessing.process.BaseProcess:
    words = [word.format(**places, teaching=TEACHING, out=out) for word in shlex.split(line)]
    process = multiprocessing.get_context("fork").Process(target=work, args=(words,))
    process.start()
    return process


def finish(line: str, places: dict[str, Path], out: Path) -> float:
    """Run a command to its end; returns the seconds it took."""
    began = time.monotonic()
    process = start(line, places, out)
    process.join()
    assert process.exitcode == 0, line
    return time.monotonic() - began


def files(out: Path) -> dict[str, bytes]:
    """All files of the places that start with a name, by name."""
    found = [p for place in sorted(out.parent.glob(f"{out.name}*")) for p in place.rglob("*") if p.is_file()]
    named = {str(p.relative_to(out.parent)).removeprefix(out.name): p for p in found}
    return {n: p.read_bytes() for n, p in named.items() if p.name not in ASIDE and p.suffix not in (".png", ".svg")}


@pytest.fixture
def places(planted: Model, planted_case: CaseSpec, small_case: CaseSpec, tmp_path: Path) -> dict[str, Path]:
    sites = [Site(1, "neuron", n) for n in range(8)]
    edit = ablate.tune(planted, small_case, sites, ablate.TrainingConfig(steps=3, lr=3e-3))
    found = {
        "case": small_case.path, "every": planted_case.path, "model": export(planted, tmp_path / "original"),
        "edit": edit.save(tmp_path / "edit.safetensors"), "recipe": tmp_path / "recipe.yaml",
    }  # fmt: skip
    found["recipe"].write_text(yaml.safe_dump(RECIPE))
    Recipe.load(str(found["recipe"]))
    return {name: Path(str(path)) for name, path in found.items()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, so that each process need not import torch again")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", COMMANDS if KILLS else ["locate"])
def test_a_killed_command_can_be_given_again(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    command, rng = COMMANDS[name], random.Random(name)
    whole, out = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    for place in (whole, out):
        for line in command.first:
            finish(line, places, place)
    seconds = finish(command.line, places, whole)
    for _ in range(-(-KILLS // len(COMMANDS)) or FEW):
        if command.once and any(p.exists() for p in (out, Path(f"{out}-model")) if not command.first or p != out):
            break
        process = start(command.line, places, out)
        time.sleep(rng.uniform(0, seconds))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    ended = command.once and (Path(f"{out}-model") if command.first else out).exists()
    if not ended:
        finish(command.line, places, out)
    assert files(out) == files(whole)
    left = [p for p in (tmp_path / "killed").rglob("*") if p.name.startswith(".") or ".tmp" in p.name]
    assert not left, "leftovers of killed processes"
