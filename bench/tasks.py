"""How much faster an audit is on two workers, and whether it gives the same verdict.

    OMP_NUM_THREADS=1 python -m bench.tasks --json FILE

A standard audit of a trained edit of SmolLM2 on the first facts of a case: in one process, on two processes, and on two
workers of a Ray cluster on this machine, if Ray is installed. Every process has as many threads as this one, so a
machine with two cores shows most with one thread. Each way runs once, from the first worker's start to the verdict.

`busy`: the seconds of all jobs together; more than in one process means that the workers are in each other's way.
`start`: until the first job begins. `waiting`: the seconds, after that, in which a worker had no job.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import loka
from bench.patching import processor
from loka.ablate import TrainingConfig
from loka.audit import FolderStore, estimate, seconds_a_row
from loka.knowledge import Case, Split
from loka.model import Edit, Model, Work
from loka.pipeline.tasks import Workers

WAYS = {"1 process": Workers(), "2 workers": Workers(2), "2 Ray workers": Workers(2, "local")}


def main() -> None:
    """Run every way, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--case", default="capitals")
    parser.add_argument("--facts", type=int, default=6, help="forget so many facts, and retain four times as many")
    parser.add_argument("--profile", default="standard")
    options = parser.parse_args()
    model = loka.load(options.model)
    case = first(loka.case(options.case).on(model), options.facts)
    sites = loka.locate.attribution(model, case, parts=("neuron",)).top(200)
    edit = loka.ablate.tune(model, case, sites, TrainingConfig("npo", steps=8, lr=3e-4, retain_rows=12, neutral_rows=2))
    passes = sum(step.cost for step in estimate(model, edit, case, profile=options.profile))
    print(f"{passes:,.0f} forward passes, about {passes * seconds_a_row(model, case):,.0f} s in one process")
    ways = {name: way for name, way in WAYS.items() if not way.ray or importlib.util.find_spec("ray")}
    rows = [measure(name, way, model, edit, case, options.profile) for name, way in ways.items()]
    verdicts = [row.pop("verdict") for row in rows]
    for row, verdict in zip(rows, verdicts, strict=True):
        row["settings"]["same verdict"] = verdict == verdicts[0]
        row["ratio"] = rows[0]["settings"]["seconds"] / row["settings"]["seconds"]
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def first(case: Case, n: int) -> Case:
    """The case with its first forget facts, and four times as many retain facts of each part."""
    return dataclasses.replace(
        case,
        forget=Split(case.forget.working[:n], case.forget.sealed[:n]),
        retain=Split(case.retain.working[: 4 * n], case.retain.sealed[: 4 * n]),
    )


def measure(name: str, workers: Workers, model: Model, edit: Edit, case: Case, profile: Any) -> dict[str, Any]:
    """The times and the verdict of one way."""
    jobs: list[tuple[str, float, float]] = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, workers.runner(model, trains=True) as runner:
        store = FolderStore(Path(folder), model, edit, case)
        verdict = loka.audit(
            model, edit, case, profile=profile, store=store, runner=lambda work: runner(Watched(work, jobs))
        )
        seconds = time.perf_counter() - start
    begun = min(begin for _, begin, _ in jobs)
    busy = sum(end - begin for _, begin, end in jobs)
    n = workers.n or 1
    last = max(end for _, _, end in jobs)
    return {
        "name": f"an audit in 1 process / on {name}", "unit": "times", "n": 1, "verdict": verdict.to_json({}),
        "settings": {
            "seconds": seconds, "busy": busy, "start": begun - start, "waiting": n * (last - begun) - busy,
            "jobs": len(jobs), "longest": max((end - begin, job) for job, begin, end in jobs), "profile": profile,
            "facts": len(case.forget.sealed), "model": model.name, "threads": torch.get_num_threads(),
            "processor": processor(model),
        },
    }  # fmt: skip


class Watched:
    """Work that notes each job, when it began and when it ended."""

    def __init__(self, work: Work[Any], jobs: list[tuple[str, float, float]]) -> None:
        self.work, self.jobs = work, jobs
        self.ready, self.run, self.task = work.ready, work.run, work.task

    def done(self, job: Any, result: Any, seconds: float) -> None:
        """Note the job, and pass on its result."""
        now = time.perf_counter()
        self.jobs.append((str(job), now - seconds, now))
        self.work.done(job, result, seconds)


def show(rows: list[dict[str, Any]]) -> None:
    """One line for each way."""
    table = Table(title="a standard audit")
    for column in ("", "seconds", "times as fast", "busy", "start", "waiting", "same verdict"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        s = row["settings"]
        numbers = (f"{s[key]:,.0f}" for key in ("busy", "start", "waiting"))
        name = row["name"].rpartition(" / ")[2].removeprefix("on ")
        table.add_row(name, f"{s['seconds']:,.0f}", f"{row['ratio']:.2f}", *numbers, str(s["same verdict"]))
    Console().print(table)
    seconds, job = rows[0]["settings"]["longest"]
    print(f"{rows[0]['settings']['jobs']} jobs; the longest, {job}, takes {seconds:,.0f} s in one process")


if __name__ == "__main__":
    main()
