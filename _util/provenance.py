"""The record of how a folder was made: the command, its inputs, versions, durations and memory."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import JsonValue

from .errors import UserError
from .files import read_json, seal, write_json
from .records import check_size, read_record

PACKAGES = ("torch", "transformers", "transformer-lens", "numpy", "scikit-learn", "scipy")
NAME = "provenance.json"
ADVICE = "name another --out"
SEAL = "seal"  # the key of the file's own digest
MOST_THREADS = 1024


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The content of `provenance.json`.

    Attributes:
        command: the command line as typed, or its equivalent for a call from Python.
        arguments: what the command was given.
        threads: the number of torch's threads; with another number, sums may round differently.
        digests: SHA-256 of the inputs, by name.
        versions: of Python, LOKA and the packages that numbers depend on.
        durations: seconds by stage, over all calls on the folder.
        peak_memory_gib: the most memory that any of the processes used; `None` before a stage has ended.
        recipe: how a run edits; only runs have one.
        located: the method and the part of a run's localization.
        files: SHA-256 of the finished files, by name; `None` for one that is being written. Folders of earlier
            versions have no list.
    """

    command: str
    arguments: Mapping[str, JsonValue]
    seed: int
    threads: int
    digests: Mapping[str, str]
    versions: Mapping[str, str]
    durations: Mapping[str, float] = dataclasses.field(default_factory=dict)
    peak_memory_gib: float | None = None
    recipe: Mapping[str, JsonValue] | None = None
    located: Mapping[str, str | None] | None = None
    files: Mapping[str, str | None] | None = None

    @classmethod
    def of_call(
        cls,
        command: str,
        arguments: Mapping[str, JsonValue],
        *,
        seed: int,
        digests: Mapping[str, str],
        recipe: Mapping[str, JsonValue] | None = None,
    ) -> Provenance:
        """The provenance of a call that begins now, in this process."""
        threads = torch.get_num_threads()
        return cls(command, dict(arguments), seed, threads, dict(digests), versions(), recipe=recipe, files={})

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue]) -> Provenance:
        """Read what `to_json` gives. If there is no recipe, one among the arguments is used.

        Raises:
            UserError: a key is missing, or a value is of another type.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        known = {k: v for k, v in data.items() if k in names} if isinstance(data, Mapping) else data
        read = read_record(cls, known, "it")
        if not 1 <= read.threads <= MOST_THREADS:
            raise UserError(f"it cannot have threads = {read.threads}; 1 to {MOST_THREADS} are allowed")
        check_size("seed", read.seed, "it")
        return dataclasses.replace(read, recipe=read.recipe or read.arguments.get("recipe"))  # type: ignore[arg-type]

    def to_json(self) -> dict[str, JsonValue]:
        """The content of the file. A missing recipe, localization or list of files has no key."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {k: v for k, v in values.items() if v is not None or k not in ("recipe", "located", "files")}

    def after(self, seconds: Mapping[str, float]) -> Provenance:
        """A copy with these seconds added to their stages, and with this process's memory counted."""
        spent = {stage: round(self.durations.get(stage, 0.0) + more, 2) for stage, more in seconds.items()}
        peak = max(peak_memory_gib(), self.peak_memory_gib or 0.0)
        return dataclasses.replace(self, durations={**self.durations, **spent}, peak_memory_gib=peak)

    def listing(self, files: Mapping[str, str | None]) -> Provenance:
        """A copy that lists these files, too."""
        return dataclasses.replace(self, files={**(self.files or {}), **files})

    def unlisting(self, name: str) -> Provenance:
        """A copy that does not list this file."""
        return dataclasses.replace(self, files={n: d for n, d in (self.files or {}).items() if n != name})

    def write(self, folder: Path) -> None:
        """Write the folder's `provenance.json`, whole or not at all; files that it lists already stay listed."""
        stored = read_provenance(folder)
        (dataclasses.replace(self, files=stored.files) if stored else self).save(folder)

    def save(self, folder: Path) -> None:
        """Write `provenance.json` as this record has it; one that lists files is sealed by its own digest."""
        data = self.to_json()
        write_json(folder / NAME, data if self.files is None else {**data, SEAL: seal(data)})


def versions() -> dict[str, str]:
    """The versions of Python, of LOKA and of the packages that numbers depend on."""
    found = {p: importlib.metadata.version(p) for p in PACKAGES}
    try:
        loka = importlib.metadata.version("loka")
    except importlib.metadata.PackageNotFoundError:
        loka = "unknown"
    return found | {"python": platform.python_version(), "loka": loka}


def peak_memory_gib() -> float:
    """The most memory that this process has used, or one of its processes that have ended."""
    used = (resource.getrusage(whose).ru_maxrss for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(max(used) / 2**20, 2)


def read_provenance(folder: Path) -> Provenance | None:
    """A folder's provenance; `None` where there is no such file.

    Raises:
        UserError: a file that cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return None
    data = read_json(path, ADVICE)
    try:
        if isinstance(data, dict) and ("files" in data or SEAL in data) and data.pop(SEAL, None) != seal(data):
            raise UserError("it has changed since it was written")
        return Provenance.from_json(data)
    except UserError as error:
        raise UserError(f"{str(path)!r} cannot be read ({str(error).rstrip('.')}); {ADVICE}.") from error


@contextmanager
def recorded(
    folder: Path, *, command: str, arguments: Mapping[str, JsonValue], seed: int, digests: Mapping[str, str]
) -> Iterator[dict[str, float]]:
    """Write `provenance.json` before the block begins, and again when it ends or fails.

    The block may put seconds by stage into the dictionary that it is given; `all` is added. Durations add up over all
    calls on the folder, and the highest peak of memory is kept. The folder of a run keeps the run's provenance. A later
    call computes with as many threads as the first, so that its numbers are the same.
    """
    before, threads = read_provenance(folder), torch.get_num_threads()
    if before is not None:
        torch.set_num_threads(before.threads)
    made = Provenance.of_call(command, arguments, seed=seed, digests=digests)
    if before is not None:
        earlier = dataclasses.replace(made, durations=before.durations, peak_memory_gib=before.peak_memory_gib)
        made = earlier if before.recipe is None else before
    durations: dict[str, float] = {}
    start = time.perf_counter()
    made.after({"all": 0.0}).write(folder)
    try:
        yield durations
    finally:
        torch.set_num_threads(threads)
        made.after({**durations, "all": time.perf_counter() - start}).write(folder)
