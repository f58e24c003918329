"""`loka locate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer
from rich.markup import escape

from .. import knowledge
from .._util.errors import UserError
from ..locate import METHODS, substitutes
from ..locate import locator as find_locator
from ..model import DEFAULT, PARTS, Part
from ..pipeline.run import LOCATOR, Run
from ..report import pictures
from .bars import Bars
from .options import Case, Data, ModelName, Out, Redact, command_line, out
from .show import best_sites, what_is_left
from .where import Device, Dtype, read_dtype
from .workers import N, Ray, Resources, workers_of


def locate(
    case: Case,
    model: ModelName = DEFAULT,
    device: Device = "cpu",
    dtype: Dtype = "",
    out_: Out = Path("runs/run"),
    method: Annotated[str, typer.Option("--method", help=f"One of {', '.join(METHODS)}.")] = "",
    part: Annotated[str, typer.Option("--part", help="Score only this part: neuron, head, kv, attn, mlp.")] = "",
    top: Annotated[int, typer.Option("--top", min=1, help="How many of the best sites of each part to list.")] = 5,
    figures: Annotated[bool, typer.Option(help="Write the figures as PNG and SVG.")] = True,
    html: Annotated[bool, typer.Option(help="Write HTML pages that show each site's scores on hover.")] = True,
    redact: Redact = False,
    data: Data = None,
    workers: N = None,
    ray: Ray = "",
    ray_resource: Resources = None,
) -> None:
    """Score every head and neuron, and show which facts are lost without the best. Figures go into DIR/figures."""
    spread = workers_of(workers, ray, ray_resource)
    if method:
        find_locator(method)
    if spread.several and not (method and find_locator(method).divides):
        raise UserError(f"{method or LOCATOR} runs in one process; give --method sweep, or leave out workers.")
    if part and part not in PARTS:
        raise UserError(f"{part!r} is not a part of a model; choose one of {', '.join(PARTS)}.")
    spec = knowledge.case(case, data=data or ())
    with Bars() as bars:
        current = Run(
            out_, model=model, device=device, dtype=read_dtype(dtype), case=spec, progress=bars, command=command_line(),
            redact=redact,
        )  # fmt: skip
        for sentence in substitutes(current.case):
            bars.say(escape(sentence))
        with spread.runner(current.model, trains=False) as runner:
            found = current.localization(method or None, cast(Part, part) if part else None, runner=runner)
        silent, worth = current.controls(), current.selectivity()
        written = pictures(found, out_ / "figures", figures=figures, html=html)
    for scored in found.parts:
        out.print(best_sites(found, scored, top))
    if silent is not None:
        out.print(what_is_left(silent))
    if worth is not None:
        out.print(str(worth), soft_wrap=True, highlight=False)
    out.print(f"{len(found.frame):,} sites: {out_ / 'localization.parquet'}", soft_wrap=True)
    if written:
        names = ", ".join(path.name for path in written)
        out.print(f"Pictures in {out_ / 'figures'}: {names}", soft_wrap=True)
    out.print(f"Next: loka ablate {out_}", soft_wrap=True)
