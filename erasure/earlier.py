"""Earlier erasures, asked again under a later one: their records are found without names, and asked as they were then.

1. The impact of an earlier request says which rows of which file were its person's. It outlives the person's purge.
2. In other files, the exclusion list knows the confirmed records of its pseudonym by their keyed digests.
3. The records are asked as right after their own erasure, and compared with what the trail says of that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from .._util.errors import UserError
from ..knowledge import Passage
from ..model import Model
from ..verify.judge.thresholds import DELTA
from .assessment import impact_of
from .erased import Erasure
from .exclusion_list import Screen
from .held_back import exclusions
from .impact import Impact
from .material import Material, holdout_of, passages, spec_of
from .records import Record, checksum, read, training_files
from .register import Register
from .shown import DIGITS, Shown, regained, shown_by

HOLDS, BACK, UNASKED = "holds", "came back", "not asked"
ENTRIES = {HOLDS: "asked again", BACK: BACK}  # the kind of entry that tells of an outcome


@dataclass(frozen=True)
class Recheck:
    """How an earlier erasure fares under a later one.

    Attributes:
        request: the earlier request.
        outcome: `holds`, `came back`, or `not asked`.
        records: how many of its records were found and asked; `of`: of how many.
        regained: the share of what it took away that came back, by measure.
        reason: why it was not asked.
    """

    request: str
    outcome: str
    records: int = 0
    of: int = 0
    regained: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def words(self) -> str:
        """What was found, in a sentence."""
        if self.outcome == UNASKED:
            return f"The erasure of {self.request} could not be asked again: {self.reason}."
        most = max(self.regained, key=lambda name: self.regained[name])
        share = f"{self.regained[most]:.0%} of what it took away ({most}, {self.records} of {self.of} records asked)"
        if self.outcome == BACK:
            return f"THE ERASURE OF {self.request} CAME BACK: the model shows {share} again."
        return f"The erasure of {self.request} holds: the model shows {share} again, at most 10% is allowed."

    def to_json(self) -> dict[str, JsonValue]:
        """What the trail says of it."""
        shares: dict[str, JsonValue] = {name: round(value, DIGITS) for name, value in self.regained.items()}
        known: dict[str, JsonValue] = {"records": self.records, "of_records": self.of, "regained": shares}
        return {"outcome": self.outcome, **(known if self.of else {"reason": self.reason})}


@dataclass(frozen=True)
class Earlier:
    """The earlier erasures of a model, and the records of each request, as far as they could be found again."""

    erased: tuple[Erasure, ...]
    records: Mapping[str, tuple[Passage, ...]]
    holdout: tuple[Passage, ...]

    @classmethod
    def of(cls, register: Register, erased: Sequence[Erasure], material: Material) -> Earlier:
        """Find the records in the training data, and in the files that `material` names for it.

        Cost: two passes over the files, if there are earlier erasures.

        Raises:
            UserError: a record of an earlier request is in the holdout, or a column is missing.
        """
        ids = list(dict.fromkeys(id for each in erased for id in each.requests))
        holdout = tuple(holdout_of(material)) if ids else ()
        found = _find(_Known(register, ids), material, {passage.text for passage in holdout}) if ids else {}
        return cls(tuple(erased), {id: tuple(of.values()) for id, of in found.items()}, holdout)

    @property
    def texts(self) -> set[str]:
        """The texts of all records."""
        return {passage.text for of in self.records.values() for passage in of}

    def ask(self, register: Register, model: Model) -> list[Recheck]:
        """Ask a model about the records, and compare with what it showed right after each erasure.

        Cost: as `shown_by` for each request.
        """
        return [self._ask(register, model, id) for id in self.records]

    def _ask(self, register: Register, model: Model, id: str) -> Recheck:
        baseline, records = self._baseline(register, id), self.records[id]
        if baseline is None:
            return Recheck(id, UNASKED, reason="the trail does not say what the model showed right after it")
        if not records:
            return Recheck(id, UNASKED, reason="its records are not in the data given; name their files by --earlier")
        before, after = baseline
        now = shown_by(model, spec_of(id, {"forget": list(records), "retain": [], "twins": list(self.holdout)}))
        shares = regained(before, after, now)
        if not shares:
            return Recheck(id, UNASKED, reason="it had taken nothing away that could be measured")
        return Recheck(id, BACK if max(shares.values()) > DELTA else HOLDS, now.records, before.records, shares)

    def _baseline(self, register: Register, id: str) -> tuple[Shown, Shown] | None:
        """What the model showed before and right after the erasure, as the trail has it."""
        results = {each.result for each in self.erased}
        payloads: list[Any] = list(register.payloads(id))
        for said in (row for payload in reversed(payloads) for row in payload.get("members", [payload])):
            if said.get("result") in results and "shown" in said:
                return Shown.from_json(said["shown"]["before"]), Shown.from_json(said["shown"]["after"])
        return None


def undone(rechecks: Iterable[Recheck]) -> list[Recheck]:
    """Those that came back."""
    return [each for each in rechecks if each.outcome == BACK]


def _find(known: _Known, material: Material, holdout: set[str]) -> dict[str, dict[str, Passage]]:
    """The records of each request, by their text."""
    found = {id: dict[str, Passage]() for id in known.ids}
    for path in dict.fromkeys(training_files((*material.data, *material.earlier)).files):
        for record, owners in known.owned(path):
            for passage in passages(material, [record]):
                if passage.text in holdout:
                    raise UserError(
                        f"line {record.row} of {str(path)!r} is a record of {owners[0]} and in the holdout, too; hold "
                        "out records that were never taught."
                    )
                for id in owners:
                    found[id].setdefault(passage.text, passage)
    return found


class _Known:
    """What the register still knows of the records of requests."""

    def __init__(self, register: Register, ids: Sequence[str]) -> None:
        self.register, self.ids = register, ids
        self.pseudonyms = {id: register.request(id).pseudonym for id in ids}
        self.impacts: dict[str, Impact] = {}
        for id in ids:
            with suppress(UserError):  # an impact that was lost: the exclusion list is left
                self.impacts[id] = impact_of(register, id)

    def owned(self, path: Path) -> Iterator[tuple[Record, list[str]]]:
        """The records of a file that are somebody's, with the requests. Files without any are not read."""
        digest, rows, assessed = checksum(path), dict[int, list[str]](), set[str]()
        for id, impact in self.impacts.items():
            for file in impact.files:
                if file.digest == digest:
                    assessed.add(id)
                    for hit in filter(lambda hit: hit.counts(), file.hits):
                        rows.setdefault(hit.row, []).append(id)
        others = [id for id in self.ids if id not in assessed]
        if rows or (others and self._screen):
            for record in read(path):
                if owners := [*rows.get(record.row, ()), *self._listed(record, others)]:
                    yield record, owners

    def _listed(self, record: Record, others: Sequence[str]) -> list[str]:
        """Those requests of whose confirmed records the exclusion list knows this one. A name alone does not count."""
        found = self._screen.match(record) if others and self._screen else {}
        return [id for id in others if found.get(self.pseudonyms[id]) == "record"]

    @cached_property
    def _screen(self) -> Screen | None:
        """The exclusion list, but for the entries of others; `None` if nobody is on it."""
        if not self.register.payloads(kind="listed"):
            return None
        listed, wanted = exclusions(self.register), set(self.pseudonyms.values())
        entries = tuple(entry for entry in listed.entries if entry.pseudonym in wanted)
        return replace(listed, entries=entries).screen() if entries else None
