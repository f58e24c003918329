"""`loka verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .. import knowledge
from .._util.files import check_writable, write_json
from .._util.ledger import finishing
from .._util.lock import locked
from .._util.provenance import recorded
from ..audit.auditor import audit
from ..audit.controls import CONTROLS
from ..audit.cost import estimate, seconds_a_row, trains_weights
from ..audit.lm_eval import lm_eval_in
from ..audit.outlook import outlook
from ..audit.plan import check_names
from ..audit.resolve import resolve
from ..audit.store import FolderStore
from ..report import write
from ..verify import CHECKS
from .bars import Bars
from .options import (
    Case,
    Data,
    LmEval,
    LmEvalLimit,
    Out,
    ProfileName,
    Redact,
    command_line,
    out,
    read_profile,
    read_tasks,
)
from .show import costs, lm_eval_table, table
from .where import Device, Dtype, load_model
from .workers import N, Ray, Resources, workers_of


def verify(
    case: Case,
    before: Annotated[str, typer.Option("--before", help="The original: smollm2, a folder or a hub id.")],
    after: Annotated[str, typer.Option("--after", help="An edit file, an adapter or model folder, or a hub id.")],
    device: Device = "cpu",
    dtype: Dtype = "",
    out_: Out = Path("runs/verify"),
    profile: ProfileName = "quick",
    list_: Annotated[bool, typer.Option("--list", help="Only list the checks and the cost of each.")] = False,
    data: Data = None,
    lm_eval: LmEval = "",
    lm_eval_limit: LmEvalLimit = None,
    redact: Redact = False,
    workers: N = None,
    ray: Ray = "",
    ray_resource: Resources = None,
) -> None:
    """Audit any pair of models. A second call on the same folder resumes."""
    chosen_profile, tasks, spec = read_profile(profile), read_tasks(lm_eval), knowledge.case(case, data=data or ())
    check_writable(out_)
    spread = workers_of(workers, ray, ray_resource)
    original = load_model(before, device, dtype)
    edited = resolve(original, after)
    chosen = spec.on(original)
    redactor = knowledge.redactor_of(out_, chosen, redact)
    hide = redactor.hide if redactor else lambda value: value
    chosen = redactor.case if redactor else chosen
    if list_:
        there = (out_ / "readings.json").exists()
        stored = FolderStore(out_, original, edited, chosen, redactor).readings if there else {}
        check_names(stored, CHECKS, CONTROLS, repr(str(out_ / "readings.json")))
        steps = estimate(original, edited, chosen, profile=chosen_profile)
        out.print(costs(steps, seconds_a_row(original, chosen), stored))
        return
    digest = redactor.token(chosen.spec.digest) if redactor else chosen.spec.digest
    digests = {"case": digest, "model": original.digest()}
    arguments = hide({"case": case, "before": before, "after": after, "profile": profile})
    arguments |= {"redacted": True} if redactor else {}
    with (
        spread.runner(original, trains=trains_weights(chosen_profile)) as runner, locked(out_),
        Bars(together=spread.several) as bars,
    ):  # fmt: skip
        store = FolderStore(out_, original, edited, chosen, redactor)
        with recorded(
            out_, command=hide(command_line()), arguments=arguments, seed=chosen.seed,
            digests={**digests, "after": edited.digest()},
        ) as durations:  # fmt: skip
            for sentence in outlook(chosen, profile=chosen_profile):
                bars.say(escape(sentence))
            try:
                verdict = audit(
                    original, edited, chosen, profile=chosen_profile, store=store, progress=bars, runner=runner
                )
            finally:
                durations |= store.seconds
            made = verdict.to_json(digests)
            with finishing(out_, "verdict.json") as path:
                write_json(path, redactor.hide_verdict(made) if redactor else made)
            utility = lm_eval_in(out_, original, edited, tasks, limit=lm_eval_limit, progress=bars) if tasks else {}
    out.print(table(verdict))
    if utility:
        out.print(lm_eval_table(utility))
    out.print(escape(str(verdict)), highlight=False)
    out.print(f"Report: {write(out_)}")
