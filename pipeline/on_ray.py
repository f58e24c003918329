"""Workers as actors of a Ray cluster, one a GPU."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from .._util.errors import UserError, first_line
from ..model import Model
from .worker import TaskDoer, WorkerDied, WorkerSpec

LOCAL, AUTO = "local", "auto"
PORTS = {"ray://": 10001, "": 6379}
CONNECT, ANSWER = 5.0, 30.0  # seconds


class RayWorker:
    """A worker as a Ray actor that holds the model."""

    def __init__(self, ray: Any, spec: WorkerSpec, options: Mapping[str, Any]) -> None:
        self._ray = ray
        self._actor = ray.remote(TaskDoer).options(**options).remote(spec)

    def do(self, task: bytes) -> bytes:
        try:
            return self._ray.get(self._actor.do.remote(task))
        except self._ray.exceptions.RayError as error:
            raise WorkerDied(first_line(error)) from error

    def stop(self) -> None:
        self._ray.kill(self._actor)


@contextmanager
def ray_workers(
    model: Model, address: str, n: int | None, *, memory: float, resources: Mapping[str, float]
) -> Iterator[tuple[Callable[[int], RayWorker], int]]:
    """What starts a worker, and how many there are; connected to the cluster as long as the block lasts.

    Args:
        address, n, resources: as those of `loka.pipeline.Workers`.
        memory: the bytes that a worker takes.

    Raises:
        UserError: Ray is not installed, the cluster does not answer, or it has no room for the workers.
    """
    ray, on_gpu, threads = _library(), model.device.type == "cuda", torch.get_num_threads()
    device = "cuda" if on_gpu else str(model.device)  # Ray shows an actor its own GPU alone
    takes = {"CPU": float(threads), **resources, **({"GPU": 1.0} if on_gpu else {"memory": memory})}
    options = {
        "num_cpus": threads, "num_gpus": int(on_gpu), "resources": dict(resources),
        "memory": None if on_gpu else int(memory), "max_restarts": 0,
    }  # fmt: skip
    with _connected(ray, address):
        fitting = _fitting(ray.cluster_resources(), takes, n)
        yield (lambda number: RayWorker(ray, WorkerSpec.of(model, device), options)), fitting


def _library() -> ModuleType:
    try:
        return import_module("ray")
    except ImportError as error:
        raise UserError("--ray needs the package ray; install it by pip install 'loka[ray]'.") from error


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    if address not in (LOCAL, AUTO):
        _check_answers(address)
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == LOCAL else None,
            logging_level="ERROR",
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster answers at {address!r} ({first_line(error)}); start one by `ray start --head`, or give "
            "--ray local for one on this machine."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Refuse an address where no cluster answers within half a minute; Ray itself tries for minutes."""
    kind = "ray://" if address.startswith("ray://") else ""
    host, colon, port = address.removeprefix(kind).rpartition(":")
    try:
        with socket.create_connection((host if colon else port, int(port) if colon else PORTS[kind]), CONNECT):
            pass
        if not kind:
            command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
            subprocess.run(command, timeout=ANSWER, check=True, capture_output=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise UserError(
            f"no Ray cluster answers at {address!r} ({first_line(error)}); check the address (HOST:PORT), start one by "
            "`ray start --head`, or give --ray local."
        ) from error


def _fitting(there: Mapping[str, float], takes: Mapping[str, float], n: int | None) -> int:
    """The number of workers: as asked for, or as many as the cluster has room for.

    Raises:
        UserError: the cluster has room for fewer.
    """
    rooms = {name: int(there.get(name, 0) // amount) for name, amount in takes.items() if amount}
    most = min(rooms.values())
    if most < (n or 1):
        short = min(rooms, key=rooms.__getitem__)
        raise UserError(
            f"the cluster has {there.get(short, 0):,.6g} of {short!r} and each worker takes {takes[short]:,.6g}, so "
            f"{most} of {n or 1} workers fit; give fewer --workers, or add nodes."
        )
    return n or most
