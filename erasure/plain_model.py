"""What a model shows of a person's records, in words and rows that a layperson can read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .model_impact import SUPPORTING, Group, Measure, ModelImpact

MISSING = "\N{EN DASH}"

PLAIN_SHOWS = {
    "something": "The model shows something of the person.",
    "nothing": "The model shows nothing of the person beyond what it says of people that it was never taught.",
    "unknown": "It is not known what the model shows of the person.",
}

PLAIN_MEASURES = {
    "extraction": "How much of a record, from its end, the model gives word by word from the record's beginning",
    "in full": "Records that the model gives in full from their first third",
    "fields": "Values of fields that the model gives in full after the record up to there",
    "membership": "How often a record looks more familiar to the model than a never-taught one (0.5 is a guess)",
}


@dataclass(frozen=True)
class ModelRow:
    """One measure, ready to print; a dash was not measured.

    Attributes:
        lead: the difference of the person's records to never-taught ones, with its interval.
        others: as `person`, of other records in the training data.
    """

    label: str
    person: str
    never: str
    lead: str
    others: str


@dataclass(frozen=True)
class ModelFinding:
    """What the model shows, for documents.

    Attributes:
        shows: nothing, something or unknown.
        plain: that in a sentence; `why`: the reason, in another.
        scope: of how many records the model was asked.
        refused: what could not be measured, and why.
    """

    shows: str
    plain: str
    why: str
    scope: str
    rows: tuple[ModelRow, ...]
    refused: tuple[str, ...]

    @classmethod
    def of(cls, model: ModelImpact) -> ModelFinding:
        """The numbers of a model half, in words."""
        scope = (
            f"The model was asked about {model.asked:,} of the person's {model.records:,} records, about "
            f"{model.others:,} records of others in the training data, and about {model.never:,} records that it was "
            "never taught."
        )
        refused = tuple(f"{PLAIN_MEASURES[m.name]}: {m.refused}" for m in model.measures if m.refused)
        return cls(
            model.shows, PLAIN_SHOWS[model.shows], model.why, scope, tuple(map(_row, model.measures)), refused
        )  # fmt: skip


def _row(measure: Measure) -> ModelRow:
    person, others = measure.person, measure.others
    show = _number if measure.name == SUPPORTING else _share
    return ModelRow(
        PLAIN_MEASURES[measure.name],
        show(person.value) if person else MISSING,
        show(person.never) if person else MISSING,
        _lead(person, show) if person else MISSING,
        show(others.value) if others else MISSING,
    )


def _lead(group: Group, show: Callable[[float], str]) -> str:
    return f"{show(group.value - group.never)} ({show(group.low)} to {show(group.high)})"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"


def _number(value: float) -> str:
    return f"{value:.2f}"
