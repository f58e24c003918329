"""The same numbers in one process and on workers, whatever happens to the workers."""

import dataclasses
import json
import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loka import UserError, ablate, audit, locate
from loka._util.errors import LokaError
from loka.audit import FolderStore, Store
from loka.audit.jobs import Job
from loka.cli import main
from loka.knowledge import Bounds, Case
from loka.model import Edit, Model, Site, SweepBudget, Work, export, load
from loka.pipeline import memory
from loka.pipeline.recipe import Recipe
from loka.pipeline.search import search
from loka.pipeline.tasks import TRIES, Pool, Workers
from loka.pipeline.worker import Answer, ProcessWorker, TaskDoer, WorkerSpec
from loka.verify import CHECKS, Budget, Verdict, capped

CAPS = {"relearn": Budget(4, 1e-3, measured=(2,)), "benign": Budget(2, 1e-3)}
NAMES = ("recall", "paraphrase", "relearn", "benign", "direction_ablation", "collateral")
SOME = tuple(c for c in capped(CAPS) if c.name in NAMES)
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, so that a process need not import torch again")
Measure = Callable[..., tuple[Verdict, dict[str, bytes]]]


@pytest.fixture(scope="module")
def stored(taught: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The small model as any process can load it."""
    return load(str(export(taught, tmp_path_factory.mktemp("model") / "taught")))


@pytest.fixture(scope="module")
def edit(stored: Model, planted_case: Case) -> Edit:
    sites = [Site(layer, "neuron", n) for layer in (1, 2) for n in range(20)]
    return ablate.tune(stored, planted_case, sites, ablate.TrainingConfig(steps=5, lr=3e-3))


@pytest.fixture(scope="module")
def pool(stored: Model) -> Iterator[Pool]:
    """Two processes of their own."""
    with Workers(2).runner(stored, trains=False) as pool:
        yield pool  # type: ignore[misc]


@pytest.fixture(scope="module")
def measure(stored: Model, planted_case: Case, edit: Edit) -> Measure:
    """Audit into a folder, and give the verdict and the folder's files."""

    def measure(folder: Path, **options: Any) -> tuple[Verdict, dict[str, bytes]]:
        known = planted_case.on(stored)
        store = FolderStore(folder, stored, edit, known)
        verdict = audit(stored, edit, known, profile="standard", store=store, checks=SOME, **options)
        return verdict, {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    return measure


@pytest.fixture(scope="module")
def alone(measure: Measure, tmp_path_factory: pytest.TempPathFactory) -> tuple[Verdict, dict[str, bytes]]:
    """What one process writes."""
    return measure(tmp_path_factory.mktemp("alone"))


def same(found: tuple[Verdict, dict[str, bytes]], wanted: tuple[Verdict, dict[str, bytes]]) -> None:
    assert found[0].to_json({}) == wanted[0].to_json({})
    assert found[1] == wanted[1]


def test_two_processes_write_the_same_bits(alone: Any, measure: Measure, pool: Pool, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    same(measure(tmp_path, runner=pool, progress=lambda *step: seen.append(step)), alone)
    assert {"readings.json", "controls/random.safetensors", "controls/shallow.safetensors"} <= set(alone[1])
    assert len(pool.workers) == 2
    assert ("relearn on after", 10, 10) in seen, "five folds of the facts, and five of the twins"
    assert {what for what, *_ in seen} >= {"shallow sibling", "random sites", "benign on before"}


def test_jobs_in_any_order_give_the_same(alone: Any, measure: Measure, tmp_path: Path) -> None:
    rng, order = random.Random(1), []

    def at_random(work: Work) -> None:
        while jobs := work.ready():
            order.append(rng.choice(jobs))
            work.done(order[-1], work.run(order[-1]), 0.0)

    same(measure(tmp_path, runner=at_random), alone)
    assert Job("after", "relearn", "forget 0 3") in order
    assert len(order) == len(set(order))


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_killed_ten_times_lose_nothing(alone: Any, measure: Measure, stored: Model, tmp_path: Path) -> None:
    started: list[ProcessWorker] = []
    rng, events, timers = random.Random(0), [], []

    def start(number: int) -> ProcessWorker:
        started.append(ProcessWorker(WorkerSpec.of(stored, "cpu"), start="fork"))
        return started[-1]

    def kill() -> None:
        alive = [w.pid for w in pool.workers.values() if w.pid and psutil.Process(w.pid).status() != "zombie"]
        os.kill(rng.choice(alive), signal.SIGKILL)

    def progress(what: str, done: int, total: int) -> None:
        events.append(what)
        if done and len(events) % 4 == 0 and len(timers) < 10:
            timers.append(threading.Timer(rng.uniform(0, 0.1), kill))
            timers[-1].start()

    with Pool(start, 2) as pool:
        found = measure(tmp_path, runner=pool, progress=progress)
    same(found, alone)
    for timer in timers:
        timer.join()
    assert len(timers) == 10
    assert len(started) > 7, "kills meet workers at work"


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_command_goes_on_with_another_number_of_workers(
    stored: Model, edit: Edit, planted_case: Case, tmp_path: Path
) -> None:
    """Killed for good: its workers end, too, and one process ends the work with the same verdict."""
    file = edit.save(tmp_path / "edit.safetensors")

    def start(out: str, workers: int) -> multiprocessing.process.BaseProcess:
        words = ["verify", planted_case.path, "--before", stored.name, "--after", file, "--out", tmp_path / out]
        words += ["--workers", workers]
        process = multiprocessing.get_context("fork").Process(target=command, args=([*map(str, words)],))
        process.start()
        return process

    first, readings = start("killed", 2), tmp_path / "killed" / "readings.json"
    while not readings.exists() and first.is_alive():
        time.sleep(0.05)
    children = psutil.Process(first.pid).children(recursive=True)
    assert len(children) >= 2
    os.kill(first.pid or 0, signal.SIGKILL)
    first.join()
    _, left = psutil.wait_procs(children, timeout=60)
    assert not left
    for process in (start("killed", 1), start("whole", 1)):
        process.join()
        assert process.exitcode == 0
    one, other = ((tmp_path / out / "verdict.json").read_bytes() for out in ("killed", "whole"))
    assert one == other
    assert json.loads((tmp_path / "killed" / "provenance.json").read_text())["threads"] == 1
    assert not [p.name for p in (tmp_path / "killed").iterdir() if p.name in ("parts.json", "shared")]


def command(words: list[str]) -> None:
    sys.argv = ["loka", *words]
    sys.modules["loka.audit.plan"].CHECKS = capped({"relearn": Budget(2, 1e-3)})  # type: ignore[attr-defined]
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    main()


def test_a_killed_audit_keeps_its_finished_parts(alone: Any, measure: Measure, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(what: str, done: int, total: int) -> None:
        if (what, done) == ("relearn on shallow", 2):
            raise Killed

    with pytest.raises(Killed):
        measure(tmp_path, progress=kill)
    parts = json.loads((tmp_path / "parts.json").read_text())
    assert [(p["model"], p["check"], p["part"]) for p in parts] == [
        ("shallow", "relearn", "forget 0 0"), ("shallow", "relearn", "forget 0 1"),
    ]  # fmt: skip
    seen: list[tuple[str, int]] = []
    same(measure(tmp_path, progress=lambda what, done, total: seen.append((what, done))), alone)
    assert min(done for what, done in seen if what == "relearn on shallow") == 2
    (tmp_path / "parts.json").write_text('[{"model": "after"}]')
    with pytest.raises(UserError, match=r"parts.json' is not a file of parts of checks; delete it"):
        measure(tmp_path)


def test_a_sweep_is_the_same_and_goes_on(stored: Model, planted_case: Case, pool: Pool, tmp_path: Path) -> None:
    known = planted_case.on(stored)
    case = dataclasses.replace(known, retain=dataclasses.replace(known.retain, working=known.retain.working[:6]))
    whole = locate.sweep(stored, case)
    budget = SweepBudget(checkpoint=tmp_path / "cells")

    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        if done >= total / 3:
            raise Killed

    with pytest.raises(Killed):
        locate.sweep(stored, case, budget=budget, progress=kill)
    seen: list[int] = []
    found = locate.sweep(stored, case, budget=budget, runner=pool, progress=lambda done, total: seen.append(done))
    assert found.frame.equals(whole.frame)
    assert seen[0] > len(whole.frame), "it went on"
    data = bytearray((tmp_path / "cells").read_bytes())
    data[-1] ^= 1
    (tmp_path / "cells").write_bytes(data)
    with pytest.raises(UserError, match="has changed since it was written"):
        locate.sweep(stored, case, budget=budget)


@pytest.mark.parametrize("in_folder", [True, False])
def test_a_search_is_the_same(stored: Model, planted_case: Case, pool: Pool, tmp_path: Path, in_folder: bool) -> None:
    recipe = Recipe(config=ablate.TrainingConfig(steps=4, lr=5e-3))
    options: Any = {"recipe": recipe, "sizes": (10, 20), "strengths": (0.5, 1.0), "bounds": Bounds(1.0, 1.0, 9.0)}
    one, two = (
        search(stored, planted_case, out=tmp_path / name if in_folder else None, **options, **more)
        for name, more in (("one", {}), ("two", {"runner": pool}))
    )
    assert one.points == two.points
    assert one.best == two.best
    assert one.edit is not None
    assert two.edit is not None
    assert one.edit.digest() == two.edit.digest()
    if in_folder:
        for file in ("search.json", "edits/10.safetensors", "edit.safetensors"):
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def answer(spec: WorkerSpec) -> Answer:
    return pickle.loads(TaskDoer(spec).do(pickle.dumps(Nothing())))


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A task."""

    def run(self, model: Model) -> str:
        return model.name


def test_a_worker_must_have_the_same_model_and_the_same_versions(stored: Model) -> None:
    spec = WorkerSpec.of(stored, "cpu")
    assert answer(spec).result == stored.name
    for other, said in (
        ({"digest": "0" * 64}, "a worker finds other weights in '.*taught' .*, not 000000000000"),
        ({"versions": spec.versions | {"loka": "0.0.9"}}, "a worker has loka .*, not 0.0.9; install the same"),
        ({"model": "/nowhere/model"}, "a worker cannot load the model '/nowhere/model' as a file .*does not exist"),
    ):
        error = answer(dataclasses.replace(spec, **other)).error  # type: ignore[arg-type]
        assert isinstance(error, UserError)
        with pytest.raises(UserError, match=said):
            raise error


def test_more_workers_than_memory_holds_are_refused(stored: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 3.5 * 2**30)
    said = "9 workers take about 9.0 GiB, 1.0 each, and 3.5 GiB are free; give --workers 3, or a smaller --dtype"
    with pytest.raises(UserError, match=said), Workers(9).runner(stored, trains=True):
        pass
    with Workers(3).runner(stored, trains=True) as runner:
        assert isinstance(runner, Pool)
    assert memory.worker_bytes(stored, trains=True) == 2**30 + 20 * stored.n_parameters
    assert memory.worker_bytes(stored, trains=False) == 2**30 + 8 * stored.n_parameters


def test_what_cannot_be_is_refused(stored: Model, planted_case: Case, edit: Edit, pool: Pool) -> None:
    with pytest.raises(UserError, match="0 workers do nothing; give --workers 1 or more"):
        Workers(0)
    with pytest.raises(UserError, match="resources by name belong to a Ray cluster"):
        Workers(2, resources={"H200": 1})
    mine = dataclasses.replace(CHECKS[0], run=lambda model, case, setting: None)
    with pytest.raises(UserError, match="know only LOKA's own checks and controls, and 'recall' is not one"):
        audit(stored, edit, planted_case, checks=[mine, *CHECKS[1:]], runner=pool)


def test_a_job_that_always_ends_its_worker_ends_the_run(stored: Model) -> None:
    class Dies:
        def do(self, task: bytes) -> bytes:
            from loka.pipeline.worker import WorkerDied

            raise WorkerDied("its exit code was -9")

        def stop(self) -> None: ...

    class One:
        def ready(self) -> list[str]:
            return ["the job"]

        def task(self, job: str) -> Nothing:
            return Nothing()

    started = []
    with pytest.raises(LokaError, match=f"the job ended its worker {TRIES} times .its exit code was -9"):
        Pool(lambda number: started.append(number) or Dies(), 1)(One())  # type: ignore[arg-type, return-value]
    assert len(started) == TRIES


def test_an_error_in_a_worker_is_raised_here(stored: Model, edit: Edit, planted_case: Case, pool: Pool) -> None:
    store = Store()
    broken = dataclasses.replace(edit, made_for="0" * 64)
    store.edits["shallow"] = broken
    with pytest.raises(UserError, match="the edit was made for weights 0000"):
        audit(stored, edit, planted_case, store=store, checks=SOME, runner=pool)
