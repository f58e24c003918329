"""`loka search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .. import knowledge
from .._util.files import check_writable
from ..model import DEFAULT
from ..pipeline.recipe import Recipe
from ..pipeline.search import search as find
from .bars import Bars
from .options import Case, Data, ModelName, Out, RecipeName, out
from .where import Device, Dtype, load_model
from .workers import N, Ray, Resources, workers_of


def search(
    case: Case,
    model: ModelName = DEFAULT,
    device: Device = "cpu",
    dtype: Dtype = "",
    out_: Out = Path("runs/search"),
    recipe: RecipeName = "",
    forget: Annotated[float, typer.Option(help="Largest share of forget prompts that may still be answered.")] = 0.05,
    retain_drop: Annotated[float, typer.Option(help="Largest fall in the share of retain prompts answered.")] = 0.02,
    perplexity_rise: Annotated[float, typer.Option(help="Largest relative rise in perplexity.")] = 0.01,
    data: Data = None,
    workers: N = None,
    ray: Ray = "",
    ray_resource: Resources = None,
) -> None:
    """Find the smallest edit within a budget. A second call on the same folder resumes."""
    check_writable(out_)
    spread = workers_of(workers, ray, ray_resource)
    bounds, unread = knowledge.Bounds(forget, retain_drop, perplexity_rise), knowledge.case(case, data=data or ())
    chosen = Recipe.load(recipe) if recipe else None
    original = load_model(model, device, dtype)
    with spread.runner(original, trains=False) as runner, Bars(together=spread.several) as bars:
        found = find(original, unread, out=out_, bounds=bounds, recipe=chosen, progress=bars, runner=runner)
    out.print(escape(str(found)), highlight=False, soft_wrap=True)
