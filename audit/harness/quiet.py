"""The harness without its output and its processes, and with templates that cannot run code."""

from __future__ import annotations

import importlib
import logging
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from jinja2.sandbox import SandboxedEnvironment

from ..._util.errors import UserError

Progress = Callable[[int, int], None]

SEED = 1234  # the harness's own, so that few-shot examples are those of published numbers
LOGGERS = ("lm_eval", "datasets", "evaluate", "huggingface_hub", "transformers")
WITH_BARS = ("lm_eval.api.task", "lm_eval.api.model", "lm_eval.models.huggingface")


def library(module: str = "") -> Any:
    """The package `lm_eval`, or a module of it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(f"lm_eval.{module}" if module else "lm_eval")
    except ImportError as error:
        raise UserError(
            f'tasks of lm-evaluation-harness need the package lm-eval ({error}); run pip install "loka[lm-eval]".'
        ) from error


def reason(error: BaseException) -> str:
    """An error of the harness in one line."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


@contextmanager
def quiet(progress: Progress | None = None, *, seed: int = SEED) -> Iterator[None]:
    """Keep the harness silent while the context lasts, with random numbers of its own.

    Its templates are rendered in a sandbox: in Jinja's ordinary environment a task file can run any code. Bootstraps
    run in this process, without a pool. Progress bars report to `progress(done, total)` instead.
    """
    utils, metrics = library("utils"), library("api.metrics")
    with ExitStack() as stack:
        for name in LOGGERS:
            stack.enter_context(_silent(logging.getLogger(name)))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(_replaced(utils, "env", _sandbox(utils.env)))
        stack.enter_context(_replaced(metrics, "bootstrap_stderr", partial(_bootstrap, metrics.sample_stddev)))
        bar = partial(_Bar, progress or (lambda done, total: None))
        for name in WITH_BARS:
            stack.enter_context(_replaced(importlib.import_module(name), "tqdm", bar))
        stack.enter_context(_no_downloads_shown())
        stack.enter_context(_randomness(seed))
        yield


class _Bar:
    """What the harness needs of a `tqdm` bar."""

    def __init__(
        self, progress: Progress, iterable: Iterable[Any] = (), *_: Any, total: int | None = None, **__: Any
    ) -> None:
        self.progress, self.iterable, self.total, self.done = progress, iterable, total, 0

    def __iter__(self) -> Iterator[Any]:
        return iter(self.iterable)

    def update(self, n: int = 1) -> None:
        self.done += n
        if self.total:
            self.progress(self.done, self.total)

    def close(self) -> None:
        """Do nothing: a bar of the caller ends by itself."""


def _sandbox(env: Any) -> SandboxedEnvironment:
    box = SandboxedEnvironment(undefined=env.undefined, keep_trailing_newline=env.keep_trailing_newline)
    box.filters.update(env.filters)
    return box


def _bootstrap(
    stddev: Callable[[list[float]], float], statistic: Callable[[list[Any]], float], values: Sequence[Any], iters: int
) -> float:
    draws = random.Random(0)
    return stddev([statistic(draws.choices(values, k=len(values))) for _ in range(iters)])


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _no_downloads_shown() -> Iterator[None]:
    bars = importlib.import_module("datasets.utils")
    enabled = not bars.are_progress_bars_disabled()
    bars.disable_progress_bars()
    try:
        yield
    finally:
        if enabled:
            bars.enable_progress_bars()


@contextmanager
def _randomness(seed: int) -> Iterator[None]:
    """Seed all generators as the harness's command line does, and restore their states at the end."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            random.seed(0)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
