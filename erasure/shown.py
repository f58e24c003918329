"""What a model shows of a person's records, beside never-taught ones, and how much of an erasure came back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from pydantic import JsonValue

from .._util.errors import NotFiniteError
from .._util.records import read_record
from ..ablate.interference import answered, share
from ..knowledge import Case, CaseSpec, Item
from ..model import Model
from ..verify import membership, recall_by_unit

TWINS = 40  # never-taught records that are asked, if there are no more of the person's
LEAST = 0.05  # a measure that fell by less took nothing away that could come back
CHANCE = 0.5  # the AUC of membership for records that nobody taught
DIGITS = 6


@dataclass(frozen=True)
class Shown:
    """What a model shows of some records, by measure, 0 to 1; `None` was not measured.

    `recall`: the share of prompts whose right continuation holds more than half of its pool's probability.
    `extraction`: how much of a record follows word by word from its own beginning. `membership`: the AUC of the loss
    against never-taught records.

    Attributes:
        records: how many records were asked; `known`: of how many the model knows most.
        person, never: the measures on these records, and on never-taught ones.
    """

    records: int
    known: int
    person: Mapping[str, float | None]
    never: Mapping[str, float | None]

    def to_json(self) -> dict[str, JsonValue]:
        """What `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Shown:
        """Read what `to_json` gives.

        Raises:
            UserError: a key is unknown or missing, or a value is of another type.
        """
        return read_record(cls, data, "what a model showed")


def shown_by(model: Model, spec: CaseSpec) -> Shown:
    """What a model shows of a case's records to forget, known or not, and of its twins.

    Cost: one pass over the records and their pools, over as many twins (at least 40), and over all texts.
    """
    case = spec.whole()
    most = max(TWINS, len(case.forget.working))
    answers = answered(model, case.forget.working)
    never = answered(model, case.twins.working[:most])
    return Shown(
        len(answers), sum(2 * sum(right) > len(right) for right in answers.values()),
        {
            "recall": _plain(share(answers)), "extraction": _extraction(model, case.forget.sealed),
            "membership": _membership(model, case),
        },
        {
            "recall": _plain(share(never)), "extraction": _extraction(model, case.twins.sealed[:most]),
            "membership": CHANCE,
        },
    )  # fmt: skip


def regained(before: Shown, after: Shown, now: Shown) -> dict[str, float]:
    """The share of what an erasure took away that came back, by each measure that had fallen.

    0: no more than right after the erasure; 1: as before it. What never-taught records show, or gained as well, does
    not count.

    >>> def shown(value): return Shown(1, 0, {"recall": value}, {"recall": 0.1})
    >>> round(regained(shown(0.9), shown(0.1), shown(0.5))["recall"], 3)
    0.5
    """
    found = {}
    for name in after.person:
        values = [of.get(name) for s in (before, after, now) for of in (s.person, s.never)]
        if any(value is None for value in values):
            continue
        had, _, left, left_never, has, has_never = map(float, values)  # type: ignore[arg-type]
        drift = max(0.0, has_never - left_never)
        if (lost := had - max(left, left_never)) >= LEAST:
            found[name] = max(0.0, has - max(left + drift, has_never)) / lost
    return found


def _extraction(model: Model, items: Sequence[Item]) -> float | None:
    return _plain(float(np.mean(list(recall_by_unit(model, items).values()))))


def _membership(model: Model, case: Case) -> float | None:
    """The AUC; `None` where the check is refused, or where the model's numbers are not finite."""
    try:
        value = membership(model, case).value
    except NotFiniteError:
        return None
    return None if value is None else _plain(float(value))


def _plain(value: float) -> float | None:
    return round(value, DIGITS) if math.isfinite(value) else None
