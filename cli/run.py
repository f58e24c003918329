"""The commands that go the whole way: `loka demo` and `loka run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from .. import knowledge
from ..audit.cost import trains_weights
from ..audit.harness import HarnessTask
from ..audit.lm_eval import lm_eval_in
from ..model import DEFAULT
from ..pipeline.recipe import Recipe
from ..pipeline.run import Run
from ..pipeline.tasks import HERE, Workers
from .bars import Bars
from .options import (
    Case,
    Data,
    LmEval,
    LmEvalLimit,
    ModelName,
    Out,
    ProfileName,
    RecipeName,
    Redact,
    command_line,
    out,
    read_profile,
    read_tasks,
)
from .show import lm_eval_table, table
from .where import Device, Dtype, read_dtype
from .workers import N, Ray, Resources, workers_of


def demo(out_: Out = Path("runs/demo"), device: Device = "cpu", dtype: Dtype = "") -> None:
    """Make SmolLM2 forget 18 capitals, and audit the result."""
    _pipeline(out_, DEFAULT, device, dtype, knowledge.case("capitals"), "quick", None)


def run(
    case: Case,
    model: ModelName = DEFAULT,
    device: Device = "cpu",
    dtype: Dtype = "",
    out_: Out = Path("runs/run"),
    profile: ProfileName = "quick",
    recipe: RecipeName = "",
    data: Data = None,
    lm_eval: LmEval = "",
    lm_eval_limit: LmEvalLimit = None,
    redact: Redact = False,
    workers: N = None,
    ray: Ray = "",
    ray_resource: Resources = None,
) -> None:
    """Locate, ablate, verify and report. A second call on the same folder resumes."""
    chosen, spec = Recipe.load(recipe) if recipe else None, knowledge.case(case, data=data or ())
    _pipeline(
        out_, model, device, dtype, spec, profile, chosen, read_tasks(lm_eval), lm_eval_limit, redact=redact,
        workers=workers_of(workers, ray, ray_resource),
    )  # fmt: skip


def _pipeline(
    folder: Path,
    model: str,
    device: str,
    dtype: str,
    case: knowledge.CaseSpec,
    profile: str,
    recipe: Recipe | None,
    tasks: Sequence[HarnessTask] = (),
    limit: int | None = None,
    *,
    redact: bool = False,
    workers: Workers = HERE,
) -> None:
    with Bars(together=workers.several) as bars:
        current = Run(
            folder, model=model, device=device, dtype=read_dtype(dtype), case=case, profile=read_profile(profile),
            recipe=recipe, progress=bars, command=command_line(), redact=redact,
        )  # fmt: skip
        known = f"{current.case.facts_known} of {current.case.facts_total}"
        bars.say(f"{current.model.name} knows {known} facts of the case {current.case.name}; the others are set aside.")
        for sentence in current.limits():
            bars.say(escape(sentence))
        with workers.runner(current.model, trains=trains_weights(current.profile)) as runner:
            current.localization(runner=runner)
            current.edit()
            verdict = current.verdict(runner)
        utility = lm_eval_in(folder, current.model, current.edit(), tasks, limit=limit, progress=bars) if tasks else {}
        path = current.report()
    out.print(table(verdict))
    if utility:
        out.print(lm_eval_table(utility))
    out.print(escape(str(verdict)), highlight=False, soft_wrap=True)
    out.print(f"\nReport: {path}")
