"""The options for workers, which several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from .._util.errors import UserError
from ..pipeline.tasks import Workers

N = Annotated[int | None, typer.Option("--workers", min=1, help="How many processes do independent jobs.")]
Ray = Annotated[
    str,
    typer.Option("--ray", metavar="ADDRESS", help="Do them on a Ray cluster: HOST:PORT, ray://HOST:PORT, auto, local."),
]
Resources = Annotated[
    list[str] | None,
    typer.Option("--ray-resource", metavar="NAME=AMOUNT", help="What each worker takes of the cluster's resources."),
]


def workers_of(n: int | None, ray: str, resources: Sequence[str] | None) -> Workers:
    """The workers that the options name. This machine's threads are divided among them."""
    workers = Workers(n, ray, dict(map(_resource, resources or ())))
    workers.share_threads()
    return workers


def _resource(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        value = float(amount)
    except ValueError:
        value = 0.0
    if not name or not 0 < value < float("inf"):
        raise UserError(f"--ray-resource {text!r} is not NAME=AMOUNT; write the amount as a number, such as H200=1.")
    return name, value
