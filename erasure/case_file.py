"""The data of a request's documents: one typed model from the request, the trail, the impact and the verdict."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from pathlib import Path

from pydantic import JsonValue

from .._util.errors import UserError
from .._util.files import digest, read_json
from .._util.records import read_record
from ..report import formats
from ..verify import Summary
from ..verify.judge.scorecard import Scorecard
from .artefacts import Artefact
from .choice import ERASURE_METHODS
from .earlier import BACK, ENTRIES
from .free_text import names_person
from .impact import Impact, read_impact
from .person import Person
from .plain_model import ModelFinding
from .plain_words import (
    EARLIER_UNDONE,
    NOT_VERIFIED,
    NUMBER_ROWS,
    PLAIN_FLAGS,
    PLAIN_OUTCOMES,
    UNDONE,
    PlainOutcome,
    plain_check,
)
from .record import Request
from .register import Register
from .terms import CHANNELS, GROUNDS, KINDS, meanings

# the kinds of entries that tell that a method was applied; a training outside of LOKA ends with the closing
APPLIED_BY = {
    "exclude": {"excluded"},
    "located": {"executed"},
    "ascent": {"executed"},
    "retrain": {"executed", "closed"},
    "sisa": {"executed", "closed"},
}
LEFT_OUT = "(A sentence that names the person was left out.)"


@dataclass(frozen=True)
class Step:
    """An entry of the trail about the request; `at` is its time in UTC."""

    number: int
    at: str
    kind: str
    words: str
    hash: str


@dataclass(frozen=True)
class Reasoning:
    """The chosen method, what it does, the rule that applied, and the reason.

    `shows` is what the model was taken to show of the person, and `shown_by` who said so; empty in older registers.
    """

    method: str
    does: str
    on: date
    rule: str
    recommended: str
    overruled: bool
    reason: str
    recipe_digest: str
    shows: str = ""
    shown_by: str = ""


@dataclass(frozen=True)
class DataImpact:
    """What the search in the training data found, in numbers, and what the model shows of it.

    Attributes:
        digests: SHA-256 of each file, by its name.
        unconfirmed: hits that count although nobody looked at them yet.
        share: of the person's tokens in all tokens.
        by_rule: hits by the name of their rule.
        unread: files without a format that can be read.
        broken: rows that could only be searched as plain text.
        model: `None` where the model was not asked.
    """

    digests: Mapping[str, str]
    searched: int
    records: int
    tokens: int
    unit: str
    share: float
    unconfirmed: int
    by_rule: Mapping[str, int]
    unread: tuple[str, ...]
    broken: int
    artefacts: tuple[Artefact, ...]
    model: ModelFinding | None = None

    @classmethod
    def of(cls, impact: Impact) -> DataImpact:
        """The numbers of an impact."""
        found = impact.found()
        return cls(
            {file.file: file.digest for file in impact.files}, impact.total.records, found.records, found.tokens,
            impact.unit, impact.share(), sum(hit.confirmed is None and hit.counts() for hit in impact.hits),
            impact.by_rule(), impact.unread, sum(file.broken for file in impact.files), impact.artefacts,
            ModelFinding.of(impact.model) if impact.model else None,
        )  # fmt: skip

    @property
    def kinds(self) -> dict[str, int]:
        """How many artefacts of each kind there are."""
        return dict(Counter(each.kind for each in self.artefacts))


@dataclass(frozen=True)
class CheckResult:
    """A check that was made, in plain words, and what it read; `value` is `None` where it measured nothing."""

    name: str
    words: str
    value: float | None
    meaning: str


@dataclass(frozen=True)
class Number:
    """A row of the table of before and after, ready to print."""

    label: str
    before: str
    after: str


@dataclass(frozen=True)
class Finding:
    """A verdict: the outcome in plain words, the sentences for specialists, and the numbers."""

    outcome: str
    plain: PlainOutcome
    claim: str
    reasons: tuple[str, ...]
    flags: tuple[str, ...]
    checks: tuple[CheckResult, ...]
    numbers: tuple[Number, ...]
    scorecard: Scorecard

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of the checks that measured something."""
        return tuple(check.name for check in self.checks if check.value is not None)


@dataclass(frozen=True)
class CaseFile:
    """All that the documents of a request are written from. It holds the pseudonym, and never the person.

    Attributes:
        written: the day of the documents.
        request: as the register keeps it.
        channel, ground: the request's, in words.
        chosen: `None` before a method is chosen.
        impact, finding: `None` where no file was given.
        steps: what the trail records of the request.
        trail: whether the trail is whole, in words.
    """

    written: date
    request: Request
    channel: str
    ground: str
    chosen: Reasoning | None
    impact: DataImpact | None
    finding: Finding | None
    steps: tuple[Step, ...]
    trail: str

    @classmethod
    def of(
        cls,
        register: Register,
        id: str,
        *,
        impact: Path | None = None,
        verdict: Path | None = None,
        today: date | None = None,
    ) -> CaseFile:
        """Gather the data of a request. Sentences of a verdict that name the person are left out.

        Args:
            impact, verdict: their JSON files.

        Raises:
            UserError: no such request, a file that holds no impact or verdict, or others than the trail records.
        """
        day, request, person = today or date.today(), register.request(id), register.held_person(id)
        entries = [(e, e.said) for e in register.entries()]
        steps = tuple(
            Step(e.number, e.at, e.kind, KINDS.get(e.kind, e.kind), e.hash)
            for e, said in entries
            if said and said.request == id
        )
        for what, path in (("impact", impact), ("verdict", verdict)):
            _check_told([said.payload for _, said in entries if said and said.request == id], what, path)
        fault = register.verify()
        whole = f"All {len(entries)} entries of the trail were verified on {day}, and none was touched."
        return cls(
            day, request, meanings(CHANNELS)[request.channel], meanings(GROUNDS)[request.ground],
            _reasoning(request), impact and DataImpact.of(read_impact(impact)),
            verdict and read_finding(verdict, person), steps,
            f"THE TRAIL WAS TOUCHED: {fault}." if fault else whole,
        )  # fmt: skip

    @property
    def outcome(self) -> PlainOutcome:
        """What was found, in plain words."""
        return UNDONE if self.undone else self.finding.plain if self.finding else NOT_VERIFIED

    @property
    def undone(self) -> bool:
        """Whether a later erasure brought records back, when they were last asked again."""
        asked = [step.kind for step in self.steps if step.kind in ENTRIES.values()]
        return asked[-1:] == [BACK]

    @property
    def done(self) -> bool:
        """Whether the method was applied, and no verdict says that this was in vain."""
        applied = {step.kind for step in self.steps} & APPLIED_BY.get(self.request.method, set())
        known = self.request.status in ("executed", "verified")
        return bool(applied or known) and not self.request.refusal and bool(self.outcome.reply)

    @property
    def excluded(self) -> bool:
        """Whether the trail says that the person went on the exclusion list."""
        return any(step.kind == "excluded" for step in self.steps)

    def to_json(self) -> dict[str, JsonValue]:
        """All data, days as ISO 8601."""
        return json.loads(json.dumps(asdict(self), default=date.isoformat))


@dataclass(frozen=True)
class _Reading:
    """What is read of a reading in `verdict.json`."""

    value: float | None
    meaning: str


@dataclass(frozen=True)
class _Verdict:
    """What is read of `verdict.json`."""

    outcome: str
    claim: str
    reasons: tuple[str, ...]
    flags: tuple[str, ...]
    scorecard: Scorecard
    summary: Summary
    readings: Mapping[str, Mapping[str, JsonValue]]


def read_finding(path: Path, person: Person | None = None) -> Finding:
    """The finding in a `verdict.json`; sentences that name the person are left out.

    Raises:
        UserError: a file that is not there or is not a verdict.
    """
    what, data = f"the verdict {str(path)!r}", read_json(path, "name the verdict.json of a run")
    if not isinstance(data, Mapping):
        raise UserError(f"{what} is not one; name the verdict.json of a run.")
    read = read_record(_Verdict, {f.name: data[f.name] for f in fields(_Verdict) if f.name in data}, what)
    if read.outcome not in PLAIN_OUTCOMES:
        raise UserError(f"{what} has the outcome {read.outcome!r}; it must be one of {', '.join(PLAIN_OUTCOMES)}.")
    checks = tuple(_check(name, reading, person, what) for name, reading in read.readings.items())
    plain = PLAIN_OUTCOMES[read.outcome]
    if any(flag.startswith(EARLIER_UNDONE) for flag in read.flags):
        plain = replace(plain, found=f"{plain.found} {PLAIN_FLAGS[EARLIER_UNDONE]}", reply="")
    return Finding(
        read.outcome, plain, _without(read.claim, person),
        tuple(_without(each, person) for each in read.reasons), tuple(_without(each, person) for each in read.flags),
        checks, _numbers(read.summary), read.scorecard,
    )  # fmt: skip


def _check_told(payloads: Sequence[Mapping[str, JsonValue]], what: str, path: Path | None) -> None:
    """Refuse an impact or verdict whose digest is not the last one that the trail records."""
    told = next((payload[what] for payload in reversed(payloads) if what in payload), None)
    if path is not None and path.is_file() and told is not None and digest(path) != told:
        raise UserError(f"{str(path)!r} is not the {what} that the trail records, or was changed; give that one.")


def _check(name: str, reading: Mapping[str, JsonValue], person: Person | None, what: str) -> CheckResult:
    read = read_record(_Reading, {key: reading.get(key) for key in ("value", "meaning")}, f"{name} of {what}")
    return CheckResult(name, plain_check(name), read.value, _without(read.meaning, person))


def _numbers(summary: Summary) -> tuple[Number, ...]:
    made = []
    for row in NUMBER_ROWS:
        show = formats.share if row.share else formats.number
        made.append(Number(row.label, show(getattr(summary, row.before)), show(getattr(summary, row.after))))
    return tuple(made)


def _reasoning(request: Request) -> Reasoning | None:
    made = request.chosen
    if made is None:
        return None
    does = ERASURE_METHODS[made.method].does
    shows, by = (str(made.situation.get(name, "")) for name in ("shows", "shown_by"))
    return Reasoning(
        made.method, does, made.on, made.rule, made.recommended, made.overruled, made.reason, made.digest, shows, by
    )  # fmt: skip


def _without(text: str, person: Person | None) -> str:
    return LEFT_OUT if person is not None and names_person(text, person) else text
