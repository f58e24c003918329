"""A request as the register keeps it, without personal data in clear."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date

from pydantic import JsonValue

from .._util.errors import UserError
from .._util.records import read_record
from .terms import STATUSES, Status


@dataclass(frozen=True)
class Identity:
    """When and how somebody verified who the person is. No copy of a document belongs here."""

    on: date
    how: str


@dataclass(frozen=True)
class Extension:
    """By how many further months the deadline was extended, when, and why."""

    months: int
    on: date
    reason: str


@dataclass(frozen=True)
class Decision:
    """When and why a request was refused or closed."""

    on: date
    reason: str


@dataclass(frozen=True)
class ChosenMethod:
    """The method of a request with its reason, frozen; it holds no personal data.

    Attributes:
        method: a row of `choice.ERASURE_METHODS`.
        rule: the row of `choice.CHOICE_RULES` that applied.
        recommended: the method of that row.
        reason: that of the row, or the officer's.
        on: the day of the choice.
        overruled: whether the officer chose another way than the rules.
        situation: the `choice.Situation`.
        recipe: the recipe of the edit; `None` where the method edits nothing.
        digest: SHA-256 of the recipe's JSON; empty without one.
    """

    method: str
    rule: str
    recommended: str
    reason: str
    on: date
    overruled: bool
    situation: Mapping[str, JsonValue]
    recipe: Mapping[str, JsonValue] | None = None
    digest: str = ""


@dataclass(frozen=True)
class Request:
    """A request for erasure.

    Attributes:
        id: such as `ER-2026-0001`, with the year of receipt.
        pseudonym: random; the same for all requests of one person that the register knows.
        received: the day of receipt; `time` is its time, with offset, where it is known.
        channel: one of `terms.CHANNELS`.
        ground: the letter of Art. 17(1), one of `terms.GROUNDS`.
        country: for public holidays, as `DE` or `DE-BY`; empty for weekends alone.
        first_due: the end of the first month.
        due: the deadline; after `first_due` where it was extended.
        status: one of `terms.STATUSES`.
        method: how the person's data are removed from the model; empty before it is chosen.
        chosen: that method with its rule, reason and recipe.
    """

    id: str
    pseudonym: str
    received: date
    channel: str
    ground: str
    first_due: date
    due: date
    time: str = ""
    country: str = ""
    status: str = "received"
    identity: Identity | None = None
    extension: Extension | None = None
    refusal: Decision | None = None
    closing: Decision | None = None
    method: str = ""
    chosen: ChosenMethod | None = None
    notes: str = ""

    @property
    def state(self) -> Status:
        """The row of the table of statuses."""
        return STATUSES[self.status]

    @property
    def needs_person(self) -> bool:
        """Whether the person must stay in the register, encrypted."""
        return self.state.open and self.state.needs_person

    @property
    def ended(self) -> date | None:
        """The day on which it was refused or closed, whichever came last."""
        return max((d.on for d in (self.refusal, self.closing) if d), default=None)

    def to_json(self) -> dict[str, JsonValue]:
        """What `from_json` reads; days as ISO 8601."""
        return json.loads(json.dumps(asdict(self), default=date.isoformat))

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue]) -> Request:
        """Read what `to_json` gives.

        Raises:
            UserError: a key is missing or unknown, or a value is of another type or no status.
        """
        read = read_record(cls, data, "a request of the register")
        if read.status not in STATUSES:
            raise UserError(f"a request of the register has the status {read.status!r}, which this LOKA does not know.")
        return read
