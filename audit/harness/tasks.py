"""Tasks of the harness, by name or from files, loaded before anything expensive starts."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..._util.errors import UserError
from .quiet import library, quiet, reason
from .task_file import SUFFIXES, TaskFile, task_files


@dataclass(frozen=True, eq=False)
class HarnessTask:
    """A task, or a group of tasks, that is ready to be run.

    Attributes:
        name: its name in the harness or in its file.
        digest: SHA-256 of what is asked: the file and its rows, or the name; and the harness's version.
        loaded: the harness's own objects.
    """

    name: str
    digest: str
    loaded: Mapping[str, Any]


def load_tasks(names: Sequence[str | HarnessTask]) -> tuple[HarnessTask, ...]:
    """The tasks of these names. What is loaded already stays as it is.

    Args:
        names: what the harness calls a task, group or tag, such as `arc_easy`; or the path of a YAML task file or of a
            folder of them (see `task_files`). A name is a path if it contains a slash or ends in `.yaml`. The data of
            the harness's own tasks come from the hub or from the cache of `datasets`.

    Raises:
        UserError: the harness is not installed; no such task; a file that is not a task; two tasks of one name; or data
            that cannot be reached.

    Cost: about ten seconds for the harness's index, if any of its own tasks is named, and their downloads.
    """
    if isinstance(names, str) or not names:
        raise UserError(f"the tasks are {names!r}; give a list of at least one, such as ['arc_easy'].")
    paths = {n: task_files(n) for n in names if isinstance(n, str) and _is_path(n)}
    with quiet():
        own = any(isinstance(n, str) and not _is_path(n) for n in names)
        manager = library("tasks").TaskManager(include_defaults=own)
        _check_names([n for n in names if isinstance(n, str) and not _is_path(n)], manager.all_tasks)
        found: list[HarnessTask] = []
        for name in names:
            if isinstance(name, HarnessTask):
                found.append(name)
            elif name in paths:
                found += [_from_file(manager, file) for file in paths[name]]
            else:
                found.append(_named(manager, name))
    _check_runnable(found)
    return tuple(found)


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.endswith(SUFFIXES)


def _check_names(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "`lm-eval ls tasks` lists its tasks."
            raise UserError(
                f"lm-evaluation-harness has no task {name!r}; {hint} A path needs a slash, such as ./{name or 'tasks'}."
            )


def _named(manager: Any, name: str) -> HarnessTask:
    _check_safe(name, (manager.task_index[name].cfg or {}).get("unsafe_code"))
    try:
        loaded = manager.load([name])
    except ImportError as error:
        raise UserError(f"the task {name!r} needs another package ({reason(error)}); install it.") from error
    except Exception as error:
        raise UserError(
            f"the task {name!r} cannot be loaded ({reason(error)}); its data come from the hub, so go online once, or "
            "give a task file with local data."
        ) from error
    return HarnessTask(name, _digest(name), loaded)


def _from_file(manager: Any, file: TaskFile) -> HarnessTask:
    _check_metrics(file)
    data = {split: [dict(row) for row in each] for split, each in file.splits.items()}

    def read(**_: object) -> Any:
        datasets = library("api.task").datasets
        return datasets.DatasetDict({split: datasets.Dataset.from_list(each) for split, each in data.items()})

    try:
        loaded = manager.load([{**file.config, "custom_dataset": read}])
    except Exception as error:
        raise UserError(
            f"the task file {str(file.path)!r} does not work with its data ({reason(error)}); correct it."
        ) from error
    return HarnessTask(file.name, _digest(file.digest), loaded)


def _check_metrics(file: TaskFile) -> None:
    """Refuse metrics that the harness does not have: it would fetch their code from the hub."""
    known = sorted(library("api.registry").metric_registry)
    metrics = file.config.get("metric_list") or []
    for each in metrics if isinstance(metrics, list) else [metrics]:
        if not isinstance(each, dict) or each.get("metric") not in known or each.get("hf_evaluate"):
            raise UserError(
                f"the task file {str(file.path)!r} has the metric {each!r}, which lm-evaluation-harness does not have "
                f"itself; write - metric: NAME, with one of {', '.join(known)}."
            )


def _check_runnable(tasks: Sequence[HarnessTask]) -> None:
    names = [name for task in tasks for name in task.loaded["tasks"]]
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(f"the task {name!r} is named {times} times; name it once.")
    for task in tasks:
        for name, each in task.loaded["tasks"].items():
            _check_safe(name, getattr(each, "UNSAFE_CODE", False))
            if getattr(each, "MULTIMODAL", False):
                raise UserError(f"the task {name!r} needs images or sound; LOKA's models read text, so leave it out.")


def _check_safe(name: str, unsafe: object) -> None:
    if unsafe:
        raise UserError(f"the task {name!r} runs code that the model writes, which LOKA does not do; leave it out.")


def _digest(content: str) -> str:
    return hashlib.sha256(json.dumps([content, library().__version__]).encode()).hexdigest()
