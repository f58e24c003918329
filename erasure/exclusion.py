"""Filter a training set by an exclusion list, and prove that nothing of it is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import JsonValue

from .._util.errors import LokaError, UserError
from .._util.files import atomic
from .._util.records import read_record
from .exclusion_list import ExclusionList, Screen
from .filtering import copy_kept
from .records import Record, checksum, read, reader_of, training_files


@dataclass(frozen=True)
class FilteredFile:
    """One file of the training set, before and after.

    Attributes:
        source, target: its paths; `file-` and the start of the digest for one that mentions somebody on the list.
        source_digest, target_digest: SHA-256 of its bytes.
        broken: rows that are left out because they cannot be read.
    """

    source: str
    target: str
    source_digest: str
    target_digest: str
    records: int
    held_back: int
    broken: int = 0


@dataclass(frozen=True)
class Exclusion:
    """What was held back of a training set.

    Attributes:
        held_back: by pseudonym, how many records each rule held back. A record may be of several people.
        left: records in the target that the same search still finds; always 0, or nothing is written.
        uncopied: files beside the training files, which are not copied; a number for one that mentions somebody.
    """

    files: tuple[FilteredFile, ...]
    held_back: Mapping[str, Mapping[str, int]]
    left: int = 0
    uncopied: tuple[str, ...] = ()

    @property
    def records(self) -> int:
        """All records of the training set, without rows that could not be read."""
        return sum(file.records for file in self.files)

    @property
    def excluded(self) -> int:
        """The records that were held back, each once."""
        return sum(file.held_back for file in self.files)

    def to_json(self) -> dict[str, JsonValue]:
        """What `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue]) -> Exclusion:
        """Read what `to_json` gives.

        Raises:
            UserError: a key is unknown or missing, or a value is of another type.
        """
        return read_record(cls, data, "the exclusion")


def exclude(
    exclusions: ExclusionList,
    source: str | Path,
    target: str | Path,
    *,
    drop_broken: bool = False,
    note: Callable[[Exclusion], None] | None = None,
) -> Exclusion:
    """Copy a training file, or a folder of them, without the records of the people on the list.

    The target is written whole or not at all, after the same search over it has found nothing. Memory: one small batch
    of records. Cost: two passes.

    Args:
        target: a new file with the suffix of the source, or a new folder if the source is one.
        drop_broken: leave out rows that cannot be read. By default they are refused, because they may be anybody's.
        note: gets the result before the target appears.

    Raises:
        UserError: the target exists, the source cannot be read or changes meanwhile, a row is broken, or the header
            of a CSV file has what is to be excluded.
        LokaError: a record is left.
    """
    source, target = Path(source), Path(target)
    found = training_files([source])
    if target.exists() or target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{str(target)!r} exists or lies in the training data; name a new place for the filtered data.")
    if not found.files:
        raise UserError(
            f"{str(source)!r} holds no training file; name files that end in .jsonl, .csv, .tsv or .parquet."
        )
    filtered = _Filter(exclusions.screen(), drop_broken)
    with atomic(target) as temporary:
        files = []
        for path in found.files:
            inner = path.relative_to(source) if source.is_dir() else Path()
            files.append(filtered.copy(path, temporary / inner, target / inner))
        by = {name: dict(counter) for name, counter in sorted(filtered.by_pseudonym.items())}
        uncopied = (filtered.named(path, f"uncopied-{i}") for i, path in enumerate(found.unread, 1))
        made = Exclusion(tuple(files), by, 0, tuple(uncopied))
        if note is not None:
            note(made)
    return made


class _Filter:
    """Copies files and counts what is held back."""

    def __init__(self, screen: Screen, drop_broken: bool) -> None:
        self._screen = screen
        self._drop_broken = drop_broken
        self.by_pseudonym: dict[str, Counter[str]] = {}

    def copy(self, source: Path, written: Path, target: Path) -> FilteredFile:
        """Copy one file to `written`, which is to become `target`."""
        counts: Counter[str] = Counter()
        reader_of(target)
        written.parent.mkdir(parents=True, exist_ok=True)
        before = checksum(source)
        copy_kept(source, written, lambda record: self._keeps(record, counts))
        if checksum(source) != before:
            raise UserError(f"{str(source)!r} changed while it was read; filter it again when nothing writes to it.")
        if left := sum(bool(self._screen.match(record)) for record in read(written)):
            raise LokaError(f"{left} records are left in {str(target)!r}, so it was not written; report this fault.")
        after = checksum(written)
        was, now = (self.named(path, f"file-{sha[:12]}") for path, sha in ((source, before), (target, after)))
        return FilteredFile(was, now, before, after, counts["records"], counts["held back"], counts["broken"])

    def named(self, path: Path, alias: str) -> str:
        """The path, or the alias with the path's suffix if the path mentions somebody on the list."""
        if not self._screen.mentions(str(path)):
            return str(path)
        return alias if self._screen.mentions(path.suffix) else f"{alias}{path.suffix}"

    def _keeps(self, record: Record, counts: Counter[str]) -> bool:
        place = f"line {record.row} of {str(record.file)!r}"
        if record.fault and not self._drop_broken:
            raise UserError(f"{place} cannot be read ({record.fault}); correct it, or leave such lines out.")
        if record.fault:
            counts["broken"] += 1
            return False
        found = self._screen.match(record)
        if record.header and found:
            raise UserError(f"{place} is the header, but holds what is to be excluded; give the file a header line.")
        counts["records"] += not record.header
        counts["held back"] += bool(found)
        for pseudonym, rule in found.items():
            self.by_pseudonym.setdefault(pseudonym, Counter())[rule] += 1
        return not found
