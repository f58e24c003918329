"""The commands that list what there is: `loka cases`, `recipes` and `models`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from .. import knowledge
from ..model import DEFAULT
from ..pipeline import recipe
from .options import out


def cases() -> None:
    """List the built-in cases."""
    for name in knowledge.cases():
        found = knowledge.case(name)
        facts = [f"{len(r.facts)} {n} facts" for n, r in found.relations.items()]
        items = [f"{len(of)} {found.file.sets[n].kind}s" for n, of in found.records.items()]
        twins = len(found.whole().twins.sealed)
        never = [f"{twins} twins"] if twins else []
        out.print(f"[bold]{name}[/]  {found.purpose}; {', '.join([*facts, *items, *never])}", soft_wrap=True)


def recipes(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Print this recipe as YAML.")] = "",
) -> None:
    """List the built-in recipes, or print one as a file to start from."""
    if name:
        out.print(escape(recipe.Recipe.load(name).to_yaml().rstrip()), highlight=False, soft_wrap=True)
        return
    for each in recipe.recipes():
        of = recipe.Recipe.load(each)
        sites = f"{of.sites:,} {of.part}s" if of.sites else "sites of its own choice"
        out.print(f"[bold]{each}[/]  {of.method} on {sites}", highlight=False)


def models() -> None:
    """List what --model takes."""
    out.print(f"[bold]{DEFAULT}[/]  SmolLM2-135M-Instruct, 30 layers, 9 heads, 46,080 neurons; fetched once (98 MB)")
    out.print("a folder with config.json and *.safetensors or *.gguf, or a hub id that transformers can load")
