"""What the harness measured, as records and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import JsonValue

from ..._util.records import read_record

Scores = Mapping[str, float | None]  # by metric; `None` is a number that is not finite


@dataclass(frozen=True)
class TaskScores:
    """What the harness measured on one task, or on a group of tasks that has a mean.

    Attributes:
        metrics: values by metric, such as `acc`; a filter other than the default follows a comma.
        stderr: standard errors of those metrics that have one.
        n: the number of samples.
        version: the task's version; only numbers of the same version can be compared.
        shots: the number of examples before each question.
    """

    metrics: Scores
    stderr: Scores
    n: int
    version: str
    shots: int


@dataclass(frozen=True)
class TaskComparison:
    """One task before and after an edit. `request` is the SHA-256 of what was asked: task, limit, seed."""

    before: TaskScores
    after: TaskScores
    request: str

    @classmethod
    def from_json(cls, data: Mapping[str, Any], what: str) -> TaskComparison:
        """Read what `to_json` gives.

        Raises:
            UserError: a key is missing, or a value is of another type.
        """
        stored = read_record(_Stored, data, what)
        before, after = (
            TaskScores(metrics, stored.stderr.get(side, {}), stored.n, stored.version, stored.shots)
            for side, metrics in (("before", stored.before), ("after", stored.after))
        )
        return cls(before, after, stored.request)

    def to_json(self) -> dict[str, JsonValue]:
        """A task's entry in `lm_eval.json`."""
        before, after = self.before, self.after
        stderr = {"before": before.stderr, "after": after.stderr}
        stored = _Stored(before.metrics, after.metrics, stderr, before.n, before.version, before.shots, self.request)
        return asdict(stored)


@dataclass(frozen=True)
class _Stored:
    before: Scores
    after: Scores
    stderr: Mapping[str, Scores]
    n: int
    version: str
    shots: int
    request: str


def task_scores(results: Mapping[str, Any], name: str) -> TaskScores:
    """One task's scores from the harness's keys, such as `acc,none` and `acc_stderr,none`."""
    metrics: dict[str, float | None] = {}
    stderr: dict[str, float | None] = {}
    for key, value in results["results"][name].items():
        metric, comma, chosen = key.partition(",")
        if comma and isinstance(value, int | float):
            side = stderr if metric.endswith("_stderr") else metrics
            side[metric.removesuffix("_stderr") + ("" if chosen == "none" else f",{chosen}")] = (
                float(value) if math.isfinite(value) else None
            )
    n, shots = results["results"][name].get("sample_len", 0), results["n-shot"].get(name) or 0
    return TaskScores(metrics, stderr, int(n), str(results["versions"].get(name)), int(shots))
