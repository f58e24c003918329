"""What a request touches: a person's records in the training data, and what may have been made from these data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from .._util.errors import UserError
from .._util.files import read_json
from .._util.records import read_record
from .artefacts import Artefact, artefacts
from .matching import Hit, Matcher
from .model_impact import ModelImpact
from .person import Person
from .records import Record, checksum, read, training_files
from .search.mentions import Mention
from .search.rules import LIKELY, RULES


@dataclass(frozen=True)
class Count:
    """Records and the tokens in them."""

    records: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class FileImpact:
    """What was found in one training file.

    Attributes:
        file: its path; if the path mentions the person, `file-` and the start of the digest in its place.
        digest: SHA-256 of its bytes.
        size: bytes.
        total: all its records.
        tokens: of each hit's record, in the order of `hits`.
        broken: rows that could not be read. They were searched as plain text.
        first_broken: what is wrong with the first of these, and its line.
    """

    file: str
    digest: str
    size: int
    total: Count
    hits: tuple[Hit, ...] = ()
    tokens: tuple[int, ...] = ()
    broken: int = 0
    first_broken: str | None = None


@dataclass(frozen=True)
class Impact:
    """What a request touches. It holds no text of a record.

    Attributes:
        unread: files in the searched folders that have no format that can be read.
        artefacts: what may have been made from the data, for a person to confirm.
        unit: what `tokens` counts.
        model: what the model shows of the person's records; `None` where it was not asked.
    """

    files: tuple[FileImpact, ...]
    unread: tuple[str, ...] = ()
    artefacts: tuple[Artefact, ...] = ()
    unit: str = "words"
    model: ModelImpact | None = None

    @property
    def hits(self) -> tuple[Hit, ...]:
        """All hits, file by file."""
        return tuple(hit for file in self.files for hit in file.hits)

    @property
    def total(self) -> Count:
        """All records that were searched."""
        return Count(sum(f.total.records for f in self.files), sum(f.total.tokens for f in self.files))

    def found(self, least: float = LIKELY) -> Count:
        """The person's records: those that a person confirmed, and those not yet looked at from this confidence on."""
        tokens = [n for f in self.files for hit, n in zip(f.hits, f.tokens, strict=True) if hit.counts(least)]
        return Count(len(tokens), sum(tokens))

    def share(self, least: float = LIKELY) -> float:
        """The share of the person's records in all tokens, 0 to 1."""
        return self.found(least).tokens / max(self.total.tokens, 1)

    def by_rule(self) -> dict[str, int]:
        """Hits by the name of their rule, strongest rule first."""
        names = [hit.rule for hit in self.hits]
        return {rule: names.count(rule) for rule in RULES if rule in names}

    def confirm(self, decisions: Mapping[tuple[str, int], bool]) -> Impact:
        """The impact with what a person said of hits, by file and row.

        What the model shows is left out where other records count than it was asked about.

        Raises:
            UserError: a file and row without a hit.
        """
        if unknown := set(decisions) - {(hit.file, hit.row) for hit in self.hits}:
            file, row = min(unknown)
            raise UserError(f"there is no hit at row {row} of {file!r}; choose from the hits of this impact.")
        made = replace(self, files=tuple(
            replace(f, hits=tuple(replace(h, confirmed=decisions.get((h.file, h.row), h.confirmed)) for h in f.hits))
            for f in self.files
        ))  # fmt: skip
        same = all(a.counts() == b.counts() for a, b in zip(self.hits, made.hits, strict=True))
        return made if same else replace(made, model=None)

    def confirmed_as(self, earlier: Impact) -> Impact:
        """The impact with what a person said before of the same rows of files that did not change."""
        said = {(f.digest, hit.row): hit.confirmed for f in earlier.files for hit in f.hits}
        known = {(hit.file, hit.row): said.get((f.digest, hit.row)) for f in self.files for hit in f.hits}
        return self.confirm({place: yes for place, yes in known.items() if yes is not None})

    def check_unchanged(self, sources: Iterable[str | Path]) -> None:
        """Refuse training data that changed since they were assessed. Cost: one pass over the bytes.

        Raises:
            UserError: a file is new, gone, or has other bytes.
        """
        self.unchanged_files(sources)

    def unchanged_files(self, sources: Iterable[str | Path]) -> dict[str, Path]:
        """The training files by digest, if they are the ones that were assessed; else as `check_unchanged`."""
        files = [(checksum(path), path) for path in training_files(sources).files]
        new, gone = Counter(found for found, _ in files), Counter(f.digest for f in self.files)
        advice = "assess the request again"
        if changed := [path for found, path in files if found in new - gone]:
            raise UserError(f"{str(changed[0])!r} is not as it was when the request was assessed, or is new; {advice}.")
        if missing := [f.file for f in self.files if f.digest in gone - new]:
            raise UserError(f"{missing[0]!r} was assessed but is not among the training data now; {advice}.")
        return dict(files)

    def to_json(self) -> dict[str, JsonValue]:
        """What `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue], what: str = "the impact") -> Impact:
        """Read what `to_json` gives.

        Args:
            what: how an error names it.

        Raises:
            UserError: a key is unknown or missing, a value is of another type, or a file has other numbers of hits and
                of their tokens.
        """
        found = read_record(cls, data, what)
        if odd := [file for file in found.files if len(file.hits) != len(file.tokens)]:
            raise UserError(
                f"{what} has {len(odd[0].hits)} hits of {odd[0].file!r} and tokens of {len(odd[0].tokens)}; give "
                "`loka erase assess` again."
            )
        return found


@dataclass(frozen=True)
class Excerpt:
    """A hit with its record, to be shown to a person or put on an exclusion list, and not kept."""

    hit: Hit
    record: Record


def assess_data(
    person: Person,
    files: Iterable[str | Path],
    folders: Iterable[str | Path] = (),
    *,
    count: Callable[[str], int] | None = None,
    least: float = 0.0,
) -> Impact:
    """Search training files for a person's records, and folders for what may have been made from them.

    Memory: the hits, one small batch of records, and a bounded vocabulary. Cost: see docs/results.md.

    Args:
        files: training files, and folders of them.
        folders: where models, adapters, exports and copies of the data are kept.
        count: the tokens of a text; by default, its words.
        least: hits of lower confidence are not listed.

    Raises:
        UserError: a source that does not exist or cannot be read, a file that changes while it is read, a person
            without a name and identifiers, or a package that is missing.
    """
    matcher, found = Matcher(person), training_files(files)
    if not found.files:
        raise UserError("there is no training file to search; name files that end in .jsonl, .csv, .tsv or .parquet.")
    passed = [_pass(matcher, path, count or _words) for path in found.files]
    assessed = tuple(_settled(matcher, one, least) for one in passed)
    copies = {f.digest: f.file for f in assessed}
    made = artefacts(folders, copies)
    searched = {str(path.resolve()) for path in found.files}
    others = [a for a in made if str(Path(a.path).resolve()) not in searched]
    return Impact(
        assessed,
        tuple(_alias(matcher, path, f"unread-{i}") for i, path in enumerate(found.unread, 1)),
        tuple(replace(a, path=_alias(matcher, Path(a.path), f"artefact-{i}")) for i, a in enumerate(others, 1)),
        "words" if count is None else "tokens",
    )


def read_impact(path: str | Path) -> Impact:
    """The impact in a JSON file.

    Raises:
        UserError: a file that is not there, or that holds no impact.
    """
    data = read_json(path, "name the impact that `loka erase assess` wrote")
    return Impact.from_json(data, f"the impact {str(path)!r}")


def kept_impact(folder: Path, id: str) -> Path | None:
    """The file in which `loka erase assess` kept the impact of a request, in the register's folder, if it is there."""
    path = folder / id / "impact.json"
    return path if path.is_file() else None


def excerpts(impact: Impact, files: Iterable[str | Path]) -> Iterator[Excerpt]:
    """The hits with their records. The files are read again, as a stream.

    Raises:
        UserError: the files changed since they were assessed.
    """
    by_digest = impact.unchanged_files(files)
    for one in impact.files:
        rows = {hit.row: hit for hit in one.hits}
        records = read(by_digest[one.digest]) if rows else ()
        yield from (Excerpt(rows[r.row], r) for r in records if r.row in rows)


@dataclass
class _Passed:
    """One file after its records were read, before the search decided which similar names are misspellings."""

    path: Path
    digest: str
    size: int
    mentions: list[tuple[int, Mention, int]]
    records: int = 0
    tokens: int = 0
    broken: int = 0
    first_broken: str | None = None


def _pass(matcher: Matcher, path: Path, count: Callable[[str], int]) -> _Passed:
    before = path.stat()
    made = _Passed(path, checksum(path), before.st_size, [])
    for record in read(path):
        _add(made, matcher, record, count)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError(f"{str(path)!r} changed while it was read; assess it again when nothing writes to it.")
    return made


def _add(made: _Passed, matcher: Matcher, record: Record, count: Callable[[str], int]) -> None:
    tokens = 0 if record.header else count(record.text)
    made.records += not record.header
    made.tokens += tokens
    if record.fault:
        made.broken += 1
        made.first_broken = made.first_broken or f"line {record.row}: {record.fault}"
    if (mention := matcher.match(record)) is not None:
        made.mentions.append((record.row, mention, tokens))


def _settled(matcher: Matcher, made: _Passed, least: float) -> FileImpact:
    name = _alias(matcher, made.path, f"file-{made.digest[:12]}")
    hits, tokens = [], []
    for row, mention, n in made.mentions:
        rule = matcher.settled(mention).rule
        if rule.confidence >= least:
            hits.append(Hit(name, row, rule.name, rule.confidence))
            tokens.append(n)
    total = Count(made.records, made.tokens)
    return FileImpact(name, made.digest, made.size, total, tuple(hits), tuple(tokens), made.broken, made.first_broken)


def _alias(matcher: Matcher, path: Path, alias: str) -> str:
    """The path, or the alias with the path's suffix if the path mentions the person."""

    def mentioned(text: str) -> bool:
        return matcher.match(Record(path, 0, (text,), (), b"")) is not None

    if not mentioned(str(path)):
        return str(path)
    return alias if mentioned(path.suffix) else f"{alias}{path.suffix}"


def _words(text: str) -> int:
    return len(text.split())
