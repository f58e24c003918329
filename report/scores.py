"""Numbers that others publish too: of benchmarks that the case is made from, and of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .._util.errors import UserError
from .._util.files import read_json
from ..verify.benchmarks import BENCHMARKS, Benchmark
from . import formats

TASKS = "lm_eval.json"
FORMS: dict[str, Callable[[float | None], str]] = {
    "forget_quality": formats.small,
    "privleak": lambda value: formats.number(value, 1),
}


class Score(NamedTuple):
    """One number before and after, ready to print."""

    name: str
    before: str
    after: str


class BenchmarkTable(NamedTuple):
    """A benchmark's numbers: those that people quote, and the rest."""

    title: str
    scores: list[Score]
    more: list[Score]


class TaskScore(NamedTuple):
    """One metric of one task of lm-evaluation-harness."""

    task: str
    metric: str
    before: str
    after: str
    change: str
    n: str


def benchmark_tables(verdict: Mapping[str, Any]) -> list[BenchmarkTable]:
    """The tables of the benchmarks in a verdict, each with all of its numbers."""
    found: Mapping[str, Any] = verdict.get("benchmarks", {})
    return [_table(row, found[name]) for name, row in BENCHMARKS.items() if name in found]


def _table(row: Benchmark, of_model: Mapping[str, Mapping[str, float | None]]) -> BenchmarkTable:
    scores = {name: _score(name, label, of_model) for name, label in row.labels.items()}
    return BenchmarkTable(row.title, [scores.pop(name) for name in row.leads], list(scores.values()))


def _score(name: str, label: str, of_model: Mapping[str, Mapping[str, float | None]]) -> Score:
    form = FORMS.get(name, _three)
    return Score(label, *(form(of_model.get(model, {}).get(name)) for model in ("before", "after")))


def _three(value: float | None) -> str:
    return formats.number(value, 3)


def task_scores(folder: Path) -> list[TaskScore]:
    """The scores of tasks of lm-evaluation-harness in a folder's `lm_eval.json`; none without the file.

    Raises:
        UserError: a file that cannot be read, or that holds something else.
    """
    path = folder / TASKS
    if not path.exists():
        return []
    advice = "delete it, and run the tasks again"
    data = read_json(path, advice)
    try:
        return [score for task, found in data["tasks"].items() for score in _task(task, found)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{str(path)!r} is not a file of task scores ({error!r}); {advice}.") from error


def _task(task: str, found: Mapping[str, Any]) -> list[TaskScore]:
    before, after, n = found["before"], found["after"], formats.count(found["n"])
    return [
        _metric(task, metric, before.get(metric), after.get(metric), n) for metric in dict.fromkeys([*before, *after])
    ]


def _metric(task: str, metric: str, before: float | None, after: float | None, n: str) -> TaskScore:
    change = formats.MISSING if before is None or after is None else f"{after - before:+.3f}"
    return TaskScore(task, metric, _three(before), _three(after), change, n)
