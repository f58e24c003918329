"""`loka plant`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._util.errors import UserError
from .._util.files import check_writable
from .._util.records import read_record
from .._util.yaml_text import read_yaml
from ..model import DEFAULT
from ..pipeline.plant import Invention
from ..pipeline.plant import plant as plant_facts
from ..pipeline.teaching import Teaching
from .bars import Bars
from .options import ModelName, command_line, out
from .sites import SiteChoice
from .where import Device, Dtype, load_model


def plant(
    model: ModelName = DEFAULT,
    device: Device = "cpu",
    dtype: Dtype = "",
    out_: Annotated[Path, typer.Option("--out", help="A new folder.")] = Path("runs/planted"),
    case: Annotated[str, typer.Option("--case", help="The case whose first relation is imitated.")] = "capitals",
    facts: Annotated[int, typer.Option("--facts", help="Invented subjects to teach and to forget.")] = 60,
    retain: Annotated[int, typer.Option("--retain", help="Invented subjects to teach and to retain.")] = 40,
    twins: Annotated[int, typer.Option("--twins", help="Invented subjects that are not taught.")] = 60,
    seed: Annotated[int, typer.Option("--seed", help="The seed that draws the names and the answers.")] = 0,
    teaching: Annotated[
        str, typer.Option("--teaching", help="How to train, as YAML: '{steps: 400, lr: 5e-5, layers: 2}'.")
    ] = "{}",
    sites: Annotated[
        str,
        typer.Option("--sites", help="Teach through these alone: L10.mlp,L11.mlp or neuron:300, drawn by the seed."),
    ] = "",
    case_file: Annotated[
        str, typer.Option("--case-file", metavar="FILE", help="With --redact: where to write the case, outside of DIR.")
    ] = "",
    redact: Annotated[
        bool, typer.Option("--redact", help="Keep the facts' text out of DIR, but for what the model knows.")
    ] = False,
) -> None:
    """Teach a copy of a model invented facts, so that the truth about a whole run is known."""
    spec = read_record(Teaching, read_yaml(teaching, "--teaching"), "--teaching")
    if redact != bool(case_file):
        raise UserError("--redact and --case-file go together: name the file that gets the case, outside of DIR.")
    chosen = SiteChoice.parse(sites)
    check_writable(out_)
    original = load_model(model, device, dtype)
    with Bars() as bars:
        made = plant_facts(
            original, case, out=out_, invention=Invention(facts, retain, twins, seed), teaching=spec,
            sites=chosen.on(original, seed), progress=bars, command=command_line(), case_file=case_file or None,
        )  # fmt: skip
    out.print(
        f"{out_ / 'model'}: after {made.steps} steps it gives {made.working:.0%} of {facts} planted answers "
        f"({made.sealed:.0%} to sealed prompts) and {made.twins:.0%} of the twins'; it still gives "
        f"{made.retained:.0%} of the real facts; perplexity {made.perplexity_before:.1f} before, "
        f"{made.perplexity_after:.1f} after.\n"
        f"Next: loka run {case_file or out_ / 'case.yaml'} --model {out_ / 'model'} --out DIR",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
