"""Workers on a Ray cluster of this machine: the same numbers, and clear words where there is no cluster."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from loka import UserError, ablate, audit
from loka.audit import FolderStore
from loka.knowledge import Case
from loka.model import Model, Site, export, load
from loka.pipeline import on_ray
from loka.pipeline.on_ray import _check_answers, _fitting
from loka.pipeline.tasks import Workers
from loka.verify import Budget, Verdict, capped

CHECKS = tuple(c for c in capped({"relearn": Budget(2, 1e-3)}) if c.name in ("recall", "relearn", "collateral"))


@pytest.fixture(scope="module")
def stored(taught: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(str(export(taught, tmp_path_factory.mktemp("model") / "taught")))


@pytest.fixture(scope="module")
def measure(stored: Model, planted_case: Case) -> Callable[..., tuple[Verdict, bytes]]:
    edit = ablate.zero(stored, planted_case, [Site(1, "neuron", n) for n in range(20)])

    def measure(folder: Path, **options: Any) -> tuple[Verdict, bytes]:
        known = planted_case.on(stored)
        store = FolderStore(folder, stored, edit, known)
        verdict = audit(stored, edit, known, store=store, checks=CHECKS, **options)
        return verdict, (folder / "readings.json").read_bytes()

    return measure


def test_two_ray_workers_write_the_same_bits_though_one_dies(
    stored: Model, measure: Callable[..., tuple[Verdict, bytes]], tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray", reason="needs ray")
    alone = measure(tmp_path / "alone")
    killed: list[int] = []

    def kill(what: str, done: int, total: int) -> None:
        if what == "relearn on shallow" and done == 1 and not killed:
            children = psutil.Process().children(recursive=True)
            killed.append(next(c.pid for c in children if c.cmdline()[:1] == ["ray::TaskDoer.do"]))
            os.kill(killed[0], signal.SIGKILL)

    with Workers(2, "local").runner(stored, trains=False) as pool:
        found = measure(tmp_path / "ray", runner=pool, progress=kill)
    assert killed
    assert found[0].to_json({}) == alone[0].to_json({})
    assert found[1] == alone[1]
    assert not ray.is_initialized()


def test_without_ray_the_package_is_named(stored: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = r"--ray needs the package ray; install it by pip install 'loka\[ray\]'"
    with pytest.raises(UserError, match=said), Workers(2, "auto").runner(stored, trains=False):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no port:x", "host.invalid:6379"])
def test_an_address_that_does_not_answer_is_refused_at_once(address: str) -> None:
    with pytest.raises(UserError, match=f"no Ray cluster answers at '{address}' .*; check the address"):
        _check_answers(address)


def test_an_address_where_something_else_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs the package ray")
    monkeypatch.setattr(on_ray, "ANSWER", 0.2)
    said = "no Ray cluster answers at '127.0.0.1:.*timed out after 0.2 seconds"
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(UserError, match=said):
        _check_answers(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_cluster_that_does_not_run_here_is_refused(stored: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    said = "no Ray cluster answers at 'auto' .*; start one by `ray start --head`"
    with pytest.raises(UserError, match=said), Workers(2, "auto").runner(stored, trains=False):
        pass


def test_as_many_workers_as_the_cluster_has_room_for() -> None:
    there, takes = {"CPU": 16.0, "GPU": 4.0, "H200": 3.0}, {"CPU": 2.0, "GPU": 1.0, "H200": 1.0}
    assert _fitting(there, takes, None) == 3
    assert _fitting(there, takes, 2) == 2
    with pytest.raises(UserError, match="has 3 of 'H200' and each worker takes 1, so 3 of 4 workers fit"):
        _fitting(there, takes, 4)
    with pytest.raises(UserError, match="has 0 of 'A100' and each worker takes 1, so 0 of 1 workers fit"):
        _fitting(there, {"A100": 1.0}, None)
