"""Digests of a folder's finished files, in its `provenance.json`. A file that does not match is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError
from .files import digest, inside
from .provenance import read_provenance

CASE = ("case.yaml", "neutral_*.txt", "sets/*.jsonl")
STAGES = (
    "localization.parquet", "localization_*.json", "edit.safetensors",
    "rounds/*.safetensors", "controls/*.safetensors", "controls/audited.json", "readings.json", "parts.json",
    "verdict.json", "lm_eval.json", "search.json", "edits/*.safetensors",
)  # fmt: skip


@contextmanager
def finishing(folder: Path, name: str) -> Iterator[Path]:
    """Give the path of one of a folder's files, and list its digest when the block has written it.

    While the block runs, the file is listed without a digest, so that a run that is killed there can go on. A folder
    without `provenance.json`, or of a version that listed no files, gets no list.
    """
    path = inside(folder, name)
    _list(folder, {name: None})
    yield path
    _list(folder, {name: digest(path)})


def dropping(folder: Path, name: str) -> None:
    """Remove one of a folder's files that is needed no longer, and take it off the list."""
    inside(folder, name).unlink(missing_ok=True)
    provenance = read_provenance(folder)
    if provenance is not None and provenance.files is not None and name in provenance.files:
        provenance.unlisting(name).save(folder)


def list_case(folder: Path) -> None:
    """List the digests of the files of the case in a folder."""
    _list(folder, {name: digest(path) for name, path in _found(folder, CASE).items()})


def check_files(folder: Path) -> None:
    """Refuse a folder with a file that is not what a stage finished there, or that no stage finished.

    Folders of versions that listed no files are not checked.

    Raises:
        UserError: such a file.
    """
    provenance = read_provenance(folder)
    if provenance is None or provenance.files is None:
        return
    for name, path in _found(folder).items():
        if name not in provenance.files:
            raise UserError(f"{str(path)!r} is of no stage of this folder; move it away.")
        listed = provenance.files[name]
        if listed is not None and (now := digest(path)) != listed:
            raise UserError(
                f"{str(path)!r} has changed since it was finished (SHA-256 {now[:12]}, not {listed[:12]}); put it "
                "back, or name another --out."
            )


def _list(folder: Path, files: dict[str, str | None]) -> None:
    provenance = read_provenance(folder)
    if provenance is not None and provenance.files is not None:
        provenance.listing(files).save(folder)


def _found(folder: Path, patterns: Sequence[str] = (*CASE, *STAGES)) -> dict[str, Path]:
    paths = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    return {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
