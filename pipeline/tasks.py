"""Spread the jobs of a piece of work over processes, or over a Ray cluster.

Each worker holds the original model, gets jobs as small records, and sends back their results. This process alone
writes files. So a killed worker loses nothing but the job that it was at, which is done again, and a killed run goes on
from its folder, with any number of workers.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from .._util.errors import LokaError, UserError
from ..model import Model, Runner, Work, in_turn
from .memory import check_memory, worker_bytes, worker_devices
from .on_ray import LOCAL, ray_workers
from .worker import Answer, ProcessWorker, Worker, WorkerDied, WorkerSpec

TRIES = 5


class Pool:
    """A runner whose jobs are done by workers, each started when it is first needed. Use it in a `with` block.

    Args:
        start: starts the worker of a number.
        n: how many workers.

    A job whose worker dies is done again by a new one.

    Raises:
        LokaError: a job that ended its worker five times.
        UserError: a worker with other versions or another model; whatever a job raises.
    """

    def __init__(self, start: Callable[[int], Worker], n: int) -> None:
        self.n, self._start = n, start
        self.workers: dict[int, Worker] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.stop()
        self.workers.clear()

    def __call__(self, work: Work[Any]) -> None:
        running: dict[Future[bytes], tuple[int, Hashable]] = {}
        deaths: Counter[Hashable] = Counter()
        with ThreadPoolExecutor(self.n) as threads:
            try:
                while True:
                    self._hand_out(work, running, threads)
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        self._take(work, future, *running.pop(future), deaths)
            except BaseException:
                self.__exit__()  # the threads wait for the workers
                raise

    def _hand_out(
        self, work: Work[Any], running: dict[Future[bytes], tuple[int, Hashable]], threads: ThreadPoolExecutor
    ) -> None:
        """Give every idle worker a job that is ready."""
        busy, begun = ({pair[i] for pair in running.values()} for i in (0, 1))
        idle = [number for number in range(self.n) if number not in busy]
        waiting = [job for job in work.ready() if job not in begun] if idle else []
        for number, job in zip(idle, waiting, strict=False):
            if number not in self.workers:
                self.workers[number] = self._start(number)
            running[threads.submit(self.workers[number].do, pickle.dumps(work.task(job)))] = number, job

    def _take(self, work: Work[Any], future: Future[bytes], number: int, job: Hashable, deaths: Counter) -> None:
        try:
            answer: Answer = pickle.loads(future.result())
        except WorkerDied as died:
            self.workers.pop(number).stop()
            deaths[job] += 1
            if deaths[job] == TRIES:
                raise LokaError(
                    f"{job} ended its worker {TRIES} times ({died}); give fewer --workers if memory is short. The same "
                    "command goes on where this one ended."
                ) from died
            return
        for text in answer.warned:
            warnings.warn(text, stacklevel=2)
        if answer.error is not None:
            raise answer.error
        work.done(job, answer.result, answer.seconds)


@dataclass(frozen=True)
class Workers:
    """How many workers, and where.

    Attributes:
        n: how many. By default one, which is this process; on Ray, one for each GPU of the cluster, or for as many
            CPUs as a worker has threads.
        ray: the address of a Ray cluster; `auto` for the one that this machine is in, `local` for a new one here. By
            default, workers are processes of this machine.
        resources: what each worker on Ray takes of the cluster's own resources, by name.
    """

    n: int | None = None
    ray: str = ""
    resources: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n is not None and self.n < 1:
            raise UserError(f"{self.n} workers do nothing; give --workers 1 or more.")
        if self.resources and not self.ray:
            raise UserError("resources by name belong to a Ray cluster; give --ray ADDRESS, too.")

    @property
    def several(self) -> bool:
        """Whether other processes do the jobs."""
        return bool(self.ray) or self.n not in (None, 1)

    def share_threads(self) -> None:
        """Divide this machine's threads among workers on it, if the environment does not say how many each has.

        All of a run's processes then have as many threads, this one too, so that all numbers are those of one process.
        """
        if self.n and self.ray in ("", LOCAL) and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, torch.get_num_threads() // self.n))

    @contextmanager
    def runner(self, model: Model, *, trains: bool) -> Iterator[Runner]:
        """The runner, as long as the block lasts. No worker starts before it has a job.

        Args:
            trains: whether jobs train all weights, which takes most memory (`loka.pipeline.memory.worker_bytes`).

        Raises:
            UserError: more workers than the memory holds; no Ray here, a cluster that does not answer or that has no
                room for the workers.
        """
        if self.ray:
            memory = worker_bytes(model, trains=trains)
            with (
                ray_workers(model, self.ray, self.n, memory=memory, resources=self.resources) as (start, n),
                Pool(start, n) as pool,
            ):
                yield pool
        elif not self.several:
            yield in_turn
        else:
            assert self.n, "several workers have a number"
            check_memory(model, self.n, trains=trains)
            places = worker_devices(model, self.n)
            with Pool(lambda i: ProcessWorker(WorkerSpec.of(model, str(places[i]))), self.n) as pool:
                yield pool


HERE = Workers()
