"""Work in jobs that depend on each other's results only, so that other processes may do them.

`in_turn` does them here. `loka.pipeline.Pool` spreads them over processes and machines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from .load import Model

Job = TypeVar("Job", bound=Hashable)


class Task(Protocol):
    """A job as a small frozen record that can be pickled, for a process with the same original model."""

    def run(self, model: Model) -> Any:
        """Do the job; the result can be pickled, too, and is the same bit for bit in any process."""
        ...


class Work(Protocol[Job]):
    """What is to be done, job by job; `str(job)` names one. The process that holds the work calls these methods."""

    def ready(self) -> Sequence[Job]:
        """The unfinished jobs whose inputs are there, the most urgent first; empty if nothing can be done."""
        ...

    def run(self, job: Job) -> Any:
        """Do a job in this process."""
        ...

    def task(self, job: Job) -> Task:
        """The job for another process, which begins with it now."""
        ...

    def done(self, job: Job, result: Any, seconds: float) -> None:
        """Store a job's result, and how long it took."""
        ...


Runner = Callable[[Work[Any]], None]


def in_turn(work: Work[Any]) -> None:
    """Do all work in this process, one job after the other."""
    while jobs := work.ready():
        start = time.perf_counter()
        result = work.run(jobs[0])
        work.done(jobs[0], result, time.perf_counter() - start)
