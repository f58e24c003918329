"""The options and arguments that several commands have, and how they are read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from ..audit.harness import HarnessTask, load_tasks
from ..audit.profiles import Profile, effort

out = Console()

Case = Annotated[str, typer.Argument(metavar="CASE", help="A built-in case (see `loka cases`) or a YAML file.")]
ModelName = Annotated[str, typer.Option("--model", help="smollm2, a model folder, or a hub id.")]
Out = Annotated[Path, typer.Option("--out", help="The run folder; give it again to resume.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="A built-in recipe (see `loka recipes`) or a YAML file.")]
ProfileName = Annotated[str, typer.Option("--profile", help="How thoroughly to verify: quick, standard or full.")]
Redact = Annotated[
    bool,
    typer.Option(
        "--redact", help="Write items by number and keyed digest into every file. To resume, give CASE and this again."
    ),
]
CaseAgain = Annotated[
    str, typer.Option("--case", metavar="CASE", help="The case of a redacted folder, which has no text of it.")
]
Data = Annotated[
    list[Path] | None, typer.Option("--data", help="A folder outside the case file's own that its files may lie in.")
]
LmEval = Annotated[
    str, typer.Option("--lm-eval", metavar="TASKS", help="Also run these tasks of lm-evaluation-harness: TASK,FILE,...")
]
LmEvalLimit = Annotated[
    int | None, typer.Option("--lm-eval-limit", min=1, help="Ask only the first so many samples of each task.")
]


def read_tasks(names: str) -> Sequence[HarnessTask]:
    """The tasks, loaded before anything expensive starts."""
    return load_tasks([name.strip() for name in names.split(",")]) if names else ()


def read_profile(name: str) -> Profile:
    """The profile of this name; refuses an unknown one."""
    effort(cast(Profile, name))
    return cast(Profile, name)


def command_line() -> str:
    """The command as it was typed, for the provenance."""
    return " ".join(["loka", *sys.argv[1:]])
