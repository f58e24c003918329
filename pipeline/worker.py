"""A worker: a process that loads a model once and does tasks with it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch

from .._util.errors import LokaError, UserError, first_line
from .._util.provenance import versions
from ..model import Model, Task, load


class WorkerDied(Exception):
    """A worker ended before it answered. Its task can be done again."""


@dataclass(frozen=True)
class Answer:
    """What a worker sends back: a task's result or error, its seconds, and the warnings that it gave."""

    result: Any = None
    error: Exception | None = None
    seconds: float = 0.0
    warned: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker must have, so that its numbers are those of the process that asks: model, threads, versions."""

    model: str
    digest: str
    dtype: torch.dtype
    device: str
    threads: int
    versions: Mapping[str, str]

    @classmethod
    def of(cls, model: Model, device: str) -> WorkerSpec:
        """A worker like this process is now, with the model as it is on disk."""
        return cls(model.source, model.digest(), model.dtype, device, torch.get_num_threads(), versions())

    def load(self) -> Model:
        """The model, in a worker.

        Raises:
            UserError: other versions than those asked for, no such model here, or one with other weights.
        """
        torch.set_num_threads(self.threads)
        if other := {name: v for name, v in versions().items() if self.versions.get(name) != v}:
            name, version = next(iter(other.items()))
            raise UserError(
                f"a worker has {name} {version}, not {self.versions.get(name)}; install the same versions everywhere."
            )
        try:
            model = load(self.model, dtype=self.dtype, device=self.device)
        except LokaError as error:
            raise UserError(
                f"a worker cannot load the model {self.model!r} as a file ({first_line(error).rstrip('.')}); give a "
                "folder or a hub id that all workers see."
            ) from error
        if (digest := model.digest()) != self.digest:
            raise UserError(
                f"a worker finds other weights in {self.model!r} ({digest[:12]}, not {self.digest[:12]}); give the "
                "model as it is on disk, and the same file to all workers."
            )
        return model


class TaskDoer:
    """Does tasks, one at a time. The model is loaded with the first."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec

    @cached_property
    def _model(self) -> Model:
        return self.spec.load()

    def do(self, task: bytes) -> bytes:
        """Do a pickled task; the answer is pickled, too."""
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                wanted: Task = pickle.loads(task)
                model, start = self._model, time.perf_counter()
                answer = Answer(wanted.run(model), seconds=time.perf_counter() - start)
            except LokaError as problem:
                answer = Answer(error=problem)
            except Exception as problem:  # its class may not unpickle, and its traceback would be lost
                text = "".join(traceback.format_exception(problem))
                answer = Answer(error=RuntimeError(f"a worker failed with\n{text}"))
        texts = tuple(str(w.message) for w in warned if issubclass(w.category, UserWarning))
        return pickle.dumps(replace(answer, warned=texts))


class Worker(Protocol):
    """A worker as the pool sees it."""

    def do(self, task: bytes) -> bytes:
        """Wait for the answer to a pickled task; raises `WorkerDied` if none comes."""
        ...

    def stop(self) -> None:
        """End the worker, whatever it does."""
        ...


class ProcessWorker:
    """A worker in a new process on this machine. It ends with this process, however this one ends.

    Args:
        start: how the process starts; see `multiprocessing`. One that is not spawned shares this one's libraries.
    """

    def __init__(self, spec: WorkerSpec, *, start: str = "spawn") -> None:
        context: Any = multiprocessing.get_context(start)
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(spec, other_end), daemon=True)
        self._process.start()
        other_end.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def do(self, task: bytes) -> bytes:
        try:
            self._pipe.send_bytes(task)
            return self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            self._process.join(1)
            raise WorkerDied(f"its exit code was {self._process.exitcode}") from error

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(spec: WorkerSpec, pipe: Connection) -> None:
    """The life of a process: answer tasks until the pipe ends or the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    doer = TaskDoer(spec)
    while True:
        try:
            task = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send_bytes(doer.do(task))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
