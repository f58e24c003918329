"""The commands that work on models. `cli/entry.py` imports this file when one of them is asked for."""

from __future__ import annotations

import typer

from .folder import ablate, export, report
from .lists import cases, models, recipes
from .locate import locate
from .new import new
from .plant import plant
from .run import demo, run
from .search import search
from .verify import verify

app = typer.Typer()
for command in (demo, run, locate, ablate, search, verify, plant, report, export, cases, recipes, new, models):
    app.command()(command)
