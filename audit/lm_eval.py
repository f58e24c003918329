"""Utility as the field measures it: tasks of lm-evaluation-harness on the original and the edited model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError

from .._util.errors import UserError
from .._util.files import read_json, write_json
from .._util.ledger import finishing
from ..model import Edit, Model
from .harness import (
    SEED,
    HarnessTask,
    TaskComparison,
    TaskScores,
    library,
    load_tasks,
    quiet,
    reader,
    reason,
    task_scores,
)

NAME = "lm_eval.json"
BOOTSTRAPS = 1000  # draws, for the few metrics whose standard error has no formula

Progress = Callable[[str, int, int], None]
Tasks = Sequence[str | HarnessTask]


@dataclass(frozen=True)
class _Options:
    limit: int | None
    rows: int
    seed: int

    def __post_init__(self) -> None:
        if (self.limit is not None and self.limit < 1) or self.rows < 1:
            raise UserError(f"limit = {self.limit} and rows = {self.rows} must be 1 or more; give no limit for all.")

    def request(self, task: HarnessTask) -> str:
        return hashlib.sha256(json.dumps([task.digest, self.limit, self.seed]).encode()).hexdigest()


def evaluate(
    model: Model,
    tasks: Tasks,
    *,
    limit: int | None = None,
    rows: int = 16,
    seed: int = SEED,
    progress: Progress | None = None,
) -> dict[str, TaskScores]:
    """Run tasks of lm-evaluation-harness on a model in memory. Nothing is written, and the model stays as it is.

    Args:
        tasks: names in the harness, YAML task files, or folders of them; see `loka.audit.harness.load_tasks`. A local
            file is data: LOKA refuses the tag `!function`, `include` and all else that names or fetches code, renders
            templates in a sandbox, and needs no network for it.
        limit: ask only the first so many samples of each task. Scores of a part do not compare with published ones.
        rows: how many rows the model reads at a time.
        seed: draws the few-shot examples, and samples where a task samples. The default is the harness's.

    Returns:
        The scores of each task, and of each group that has a mean.

    Raises:
        UserError: the harness is not installed; a task that does not exist, cannot be loaded or cannot be run.

    Cost: a forward pass for each answer option of each sample, and a generation for each sample of tasks that generate.
    """
    options = _Options(limit, rows, seed)
    found: dict[str, TaskScores] = {}
    for task in load_tasks(tasks):
        found |= _measure(model, task, options, _step(progress, task, "model"))
    return found


def compare_lm_eval(
    before: Model,
    after: Edit | Model,
    tasks: Tasks,
    *,
    limit: int | None = None,
    rows: int = 16,
    seed: int = SEED,
    progress: Progress | None = None,
) -> dict[str, TaskComparison]:
    """The scores of each task on the original and the edited model. Arguments, errors and cost are as `evaluate`'s."""
    options = _Options(limit, rows, seed)
    found: dict[str, TaskComparison] = {}
    for task in load_tasks(tasks):
        found |= _compare(before, after, task, options, progress)
    return found


def lm_eval_in(
    folder: str | Path,
    before: Model,
    after: Edit | Model,
    tasks: Tasks,
    *,
    limit: int | None = None,
    rows: int = 16,
    progress: Progress | None = None,
) -> dict[str, TaskComparison]:
    """`compare_lm_eval` into `lm_eval.json` of a folder, after each task.

    What the file has of the same models, tasks and limit is not run again. Results of other models are replaced.

    Raises:
        UserError: as `evaluate`, or a file that cannot be read.
    """
    path, options = Path(folder) / NAME, _Options(limit, rows, SEED)
    digests = {"before": before.digest(), "after": after.digest()}
    stored = read_lm_eval(folder, digests) if path.exists() else {}
    requested = {options.request(task): task for task in load_tasks(tasks)}
    for request, task in requested.items():
        if not any(each.request == request for each in stored.values()):
            stored |= _compare(before, after, task, options, progress)
            entries = {name: each.to_json() for name, each in stored.items()}
            with finishing(Path(folder), NAME):
                write_json(path, {"tasks": entries, "digests": digests})
    return {name: each for name, each in stored.items() if each.request in requested}


def read_lm_eval(folder: str | Path, digests: Mapping[str, str] | None = None) -> dict[str, TaskComparison]:
    """The comparisons in a folder's `lm_eval.json`; with `digests`, only if they are of these models.

    Raises:
        UserError: a file that is not there or cannot be read.
    """
    path = Path(folder) / NAME
    advice = "remove it, and run --lm-eval again"
    data = read_json(path, advice)
    if not isinstance(data, dict) or not isinstance(data.get("tasks"), dict) or "digests" not in data:
        raise UserError(f"{str(path)!r} is not a file of lm-evaluation-harness results; {advice}.")
    if digests is not None and data["digests"] != digests:
        return {}
    return {name: TaskComparison.from_json(each, f"{name!r} of {str(path)!r}") for name, each in data["tasks"].items()}


def _compare(
    before: Model, after: Edit | Model, task: HarnessTask, options: _Options, progress: Progress | None
) -> dict[str, TaskComparison]:
    first = _measure(before, task, options, _step(progress, task, "before"))
    if isinstance(after, Model):
        second = _measure(after, task, options, _step(progress, task, "after"))
    else:
        with after.applied(before) as edited:
            second = _measure(edited, task, options, _step(progress, task, "after"))
    request = options.request(task)
    return {name: TaskComparison(scores, second[name], request) for name, scores in first.items()}


def _measure(
    model: Model, task: HarnessTask, options: _Options, progress: Callable[[int, int], None]
) -> dict[str, TaskScores]:
    """The harness's `evaluate` on one task.

    `simple_evaluate` does the same, and also starts other programs to describe the machine and asks the hub for the
    model's name.
    """
    with quiet(progress, seed=options.seed), _unchanged(model):
        for each in task.loaded["tasks"].values():
            each.set_fewshot_seed(seed=options.seed)
            if each.get_config("num_fewshot") is None:
                each.set_config(key="num_fewshot", value=0)
        try:
            results = library().evaluate(
                reader(model, options.rows),
                task.loaded,
                limit=options.limit,
                bootstrap_iters=BOOTSTRAPS,
                log_samples=False,
            )
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError, TemplateError) as error:
            why = reason(error) if str(error) else "a prompt is empty, or an answer is longer than the model reads"
            raise UserError(
                f"the task {task.name!r} cannot be run on {model.name} ({why}); correct its file, or leave it out."
            ) from error
    return {name: s for name in results["results"] if (s := task_scores(results, name)).metrics}


@contextmanager
def _unchanged(model: Model) -> Iterator[None]:
    """Restore the training mode of every module, which the harness sets."""
    modes = {module: module.training for module in model.hf.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _step(progress: Progress | None, task: HarnessTask, side: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(f"{task.name}, {side}", done, total) if progress else None
