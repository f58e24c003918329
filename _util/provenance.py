"""How a folder came about: the command, what went in, versions, durations and memory."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .errors import UserError
from .files import write_json

PACKAGES = ("torch", "transformers", "transformer-lens", "numpy", "scikit-learn", "scipy")
NAME = "provenance.json"


def versions() -> dict[str, str]:
    """Of Python, of LOKA and of the packages that numbers depend on."""
    own = {p: importlib.metadata.version(p) for p in PACKAGES}
    try:
        loka = importlib.metadata.version("loka")
    except importlib.metadata.PackageNotFoundError:
        loka = "unknown"
    return own | {"python": platform.python_version(), "loka": loka}


def peak_memory_gib() -> float:
    """The most memory that this process has held."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def read_provenance(folder: Path) -> dict[str, Any]:
    """What was written down in a folder; nothing where there is no such file.

    Raises:
        UserError: a file that cannot be read.
    """
    path = folder / NAME
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{str(path)!r} cannot be read ({error}); name another --out.") from error


@contextmanager
def recorded(
    folder: Path, *, command: str, arguments: Mapping[str, Any], seed: int, digests: Mapping[str, str]
) -> Iterator[dict[str, float]]:
    """Write `provenance.json` before the work in the block begins, and again when it ends or fails.

    The block may put seconds by what they were spent on into the dictionary that it is given. Durations of an earlier
    call are added to, and the highest peak of memory stays; the folder of a run keeps what that run was.
    """
    held = read_provenance(folder)
    durations: dict[str, float] = {}
    stored = {
        "command": command, "arguments": dict(arguments), "seed": seed, "threads": torch.get_num_threads(),
        "digests": dict(digests), "versions": versions(),
    }  # fmt: skip
    if "recipe" in held.get("arguments", {}):
        stored = held
    start = time.perf_counter()

    def keep() -> None:
        spent = {**durations, "all": time.perf_counter() - start}
        before = held.get("durations", {})
        total = {k: round(before.get(k, 0.0) + spent.get(k, 0.0), 2) for k in {**before, **spent}}
        peak = max(peak_memory_gib(), held.get("peak_memory_gib") or 0.0)
        write_json(folder / NAME, {**stored, "durations": total, "peak_memory_gib": peak})

    keep()
    try:
        yield durations
    finally:
        keep()
