"""The options that say where a model runs, and in which number type."""

from __future__ import annotations

from typing import Annotated

import torch
import typer

from ..model import Model, load
from ..model.precision import DTYPES, dtype_of

Device = Annotated[str, typer.Option("--device", help="Where the model runs: cpu, cuda, cuda:1, mps, or auto.")]
Dtype = Annotated[
    str,
    typer.Option("--dtype", help=f"The number type of its weights: {', '.join(DTYPES)}. By default float32."),
]


def read_dtype(name: str) -> torch.dtype | None:
    """The number type; `None` where none was named."""
    return dtype_of(name) if name else None


def load_model(name: str, device: str, dtype: str) -> Model:
    """The model that options name."""
    return load(name, device=device, dtype=read_dtype(dtype) or torch.float32)
