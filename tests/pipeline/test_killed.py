"""`loka verify` as a process of its own, killed for good again and again, ends with the file of one left in peace."""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from loka import ablate
from loka.cli import main
from loka.knowledge import Case
from loka.model import Model, Site, export
from loka.verify import Budget, capped

KILLED_AFTER = (0, 3, 8, 12)  # so many finished readings; 13 are all


def work(command: list[str]) -> None:
    sys.argv = ["loka", *command]
    sys.modules["loka.audit.plan"].CHECKS = capped({"relearn": Budget(4, 1e-3)})  # type: ignore[attr-defined]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    main()


def finished(folder: Path) -> set[str]:
    path = folder / "readings.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    return {f"{check} on {model}" for model, of in held.items() for check in of}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, so that each process need not import torch again")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_any_check_it_ends_the_same(planted: Model, small_case: Case, tmp_path: Path) -> None:
    best = [Site(layer, "neuron", n) for layer in (1, 2) for n in range(20)]
    ablate.tune(planted, small_case, best, ablate.TrainingConfig(steps=5, lr=3e-3)).save(tmp_path / "edit.safetensors")
    export(planted, tmp_path / "original")

    def start(out: Path) -> multiprocessing.process.BaseProcess:
        command = ["verify", small_case.path, "--before", tmp_path / "original", "--out", out,
                   "--after", tmp_path / "edit.safetensors"]  # fmt: skip
        process = multiprocessing.get_context("fork").Process(target=work, args=([*map(str, command)],))
        process.start()
        return process

    whole = start(tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0
    out = tmp_path / "killed"
    for n in KILLED_AFTER:
        process = start(out)
        while process.is_alive() and (len(finished(out)) < n or not out.exists()):
            time.sleep(0.005)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it ended before it was killed"
    before, spent = finished(out), json.loads((out / "provenance.json").read_text())["durations"]
    assert len(before) >= KILLED_AFTER[-1]
    last = start(out)
    last.join()
    assert last.exitcode == 0
    assert (out / "verdict.json").read_bytes() == (tmp_path / "whole" / "verdict.json").read_bytes()
    assert (out / "readings.json").read_bytes() == (tmp_path / "whole" / "readings.json").read_bytes()
    again = {k for k, v in json.loads((out / "provenance.json").read_text())["durations"].items() if v != spent.get(k)}
    assert not again & before, "finished checks were made again"
    assert finished(tmp_path / "whole") - before <= again
    assert not list(out.glob("*.tmp*"))
