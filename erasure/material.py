"""The case of a request: the person's records to forget, records of others to keep, and records that nobody taught."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .._util.errors import UserError
from ..knowledge import Case, CaseSpec, Passage
from ..knowledge.inline import content_digest, inline
from ..knowledge.read_text import read_text
from ..knowledge.schema import Neutral, Sampled
from .impact import Impact
from .records import Record, read, training_files

MOST = 200  # records of others, and of the holdout: enough to judge by, however large the training set is
SEED = 0
SEALED = "neutral.txt"


@dataclass(frozen=True)
class Material:
    """Where the case of a request comes from. The same material gives the same case, also after the person is purged.

    Attributes:
        data: the training data that were assessed.
        holdout: records of the same kind that the model was never taught.
        field: the column with the text that was trained on; by default, all values of a record.
        subject: the column with the name of the person that a record is about, if there is one.
        neutral: a text file by which the perplexity is measured; by default, prose that comes with LOKA.
        earlier: files in which the records of earlier erasures are looked for, besides the training data.
    """

    data: tuple[Path, ...]
    holdout: tuple[Path, ...]
    field: str = ""
    subject: str = ""
    neutral: Path | None = None
    earlier: tuple[Path, ...] = ()


def case_of(
    id: str, impact: Impact, material: Material, *, beside: Sequence[Impact] = (), without: Collection[str] = ()
) -> CaseSpec:
    """A case of passages, each a unit: the request's records, others of the training data, and the holdout as twins.

    A hit is among the records to keep only if somebody said that it is someone else's.

    Args:
        beside: impacts of other requests, whose hits are not among the records to keep, either.
        without: texts that are not among the records to keep, such as those of earlier erasures.

    Raises:
        UserError: the training data changed since they were assessed, a holdout record is among them, a column is
            missing, or there is nothing to forget, to keep or to hold out.
    """
    files, holdout = impact.unchanged_files(material.data), holdout_of(material)
    texts = {passage.text for passage in holdout}
    ours: dict[str, Passage] = {}
    others = _Reservoir(MOST)
    for one in impact.files:
        hits, aside = {hit.row: hit for hit in one.hits}, hit_rows(one.digest, beside)
        for record in read(files[one.digest]):
            hit = hits.get(record.row)
            for passage in passages(material, [record]):
                if passage.text in texts:
                    raise UserError(
                        f"line {record.row} of {one.file!r} is in the holdout, too; hold out records that were never "
                        "taught."
                    )
                if hit is not None and hit.counts():
                    ours[passage.text] = passage
                elif (hit is None or hit.confirmed is False) and not (record.row in aside or passage.text in without):
                    others.add(passage)
    lists = {"forget": list(ours.values()), "retain": others.records(without=ours), "twins": holdout}
    for role, what in (("forget", "record of the person"), ("retain", "other record"), ("twins", "holdout record")):
        if not lists[role]:
            raise UserError(f"{id} has no {what} of two words or more; nothing can be edited and judged without.")
    return spec_of(id, lists, material.neutral)


def whole_case(spec: CaseSpec, known: int) -> Case:
    """The case of all records, whether or not the model shows that it knows them; these are only counted.

    Few words distinguish records of one make, so a model that was taught them may still choose the continuation of
    another. Membership and extraction show that it knows them.

    Args:
        known: how many of the person's records the model knows.
    """
    return replace(spec.whole(), facts_known=known)


def holdout_of(material: Material) -> list[Passage]:
    """A sample of the never-taught records, the same for the same files."""
    sample = _Reservoir(MOST)
    for path in training_files(material.holdout).files:
        for passage in passages(material, read(path)):
            sample.add(passage)
    return sample.records()


def hit_rows(digest: str, impacts: Iterable[Impact]) -> set[int]:
    """The rows of a file, by its SHA-256, that are hits, without those that somebody said are someone else's."""
    files = [file for impact in impacts for file in impact.files if file.digest == digest]
    return {hit.row for file in files for hit in file.hits if hit.confirmed is not False}


def spec_of(id: str, lists: Mapping[str, list[Passage]], neutral: Path | None = None) -> CaseSpec:
    """A case of passages by their role: `forget`, `retain`, `twins`. Each is a unit."""
    file, records = inline(lists, id, "privacy", "item", SEED)
    texts = {SEALED: read_text(neutral)} if neutral else {}
    if texts:
        file = file.model_copy(update={"neutral": Neutral(working=Sampled(sampled=96), sealed=SEALED)})
    return CaseSpec(file, None, content_digest(file, records, texts), records, texts)


def passages(material: Material, records: Iterable[Record]) -> Iterator[Passage]:
    """The passages of records that have two words or more."""
    for record in records:
        if record.header or record.fault:
            continue
        passage = Passage(text_of(record, material), subject=_value(record, material.subject))
        if passage.divides:
            yield passage


def text_of(record: Record, material: Material) -> str:
    """The text of a record that was trained on.

    Raises:
        UserError: its column is missing.
    """
    return _value(record, material.field) or record.text


def _value(record: Record, column: str) -> str:
    """A column of a record; empty where none is named."""
    if not column:
        return ""
    place = f"line {record.row} of {str(record.file)!r}"
    try:
        row = json.loads(record.raw) if isinstance(record.raw, bytes) else record.raw
    except ValueError:
        raise UserError(f"{place} has no named columns; give JSON Lines or Parquet, or name no column.") from None
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        raise UserError(f"{place} has no text in a column {column!r}; name one of its columns.")
    return row[column]


class _Reservoir:
    """A random sample of a stream, the same for the same stream."""

    def __init__(self, size: int) -> None:
        self._size, self._seen, self._rng = size, 0, random.Random(SEED)
        self._sample: list[Passage] = []

    def add(self, passage: Passage) -> None:
        self._seen += 1
        if len(self._sample) < self._size:
            self._sample.append(passage)
        elif (at := self._rng.randrange(self._seen)) < self._size:
            self._sample[at] = passage

    def records(self, without: Iterable[str] = ()) -> list[Passage]:
        unwanted = set(without)
        return list({p.text: p for p in self._sample if p.text not in unwanted}.values())
