"""Ask a model what it reproduces of a person's records, beside records of others and never-taught ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .._util.errors import NotFiniteError, UserError
from ..knowledge import Case, Item, Passage, Record, score
from ..model import Model, chunks, load
from ..verify import membership, unit_key
from ..verify.asking import asked
from ..verify.check import Setting
from ..verify.judge.two_groups import Limits, auc_limits, lead, limits
from ..verify.membership import membership_cost
from .field_values import FieldValue, field_values
from .free_text import names_person
from .impact import Impact
from .material import SEED, Material, case_of
from .model_impact import LEVEL, SAMPLE, SUPPORTING, FieldShare, Group, Measure, ModelImpact
from .person import Person

ROWS = 64
ROLES = {"person": "forget", "others": "retain", "never": "twins"}
TASK = "asking the model"
LISTED = 20  # columns that the impact names

Progress = Callable[[str, int, int], None]
ByColumn = Mapping[str, Mapping[str, Sequence[float]]]  # by group and column, a number for each different value


def ask_model(
    model: Model | str,
    id: str,
    person: Person,
    impact: Impact,
    material: Material,
    *,
    sample: int = SAMPLE,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ModelImpact:
    """What a model shows of a request's records beyond records that it was never taught.

    The model continues each record from its first third and from its second, a long one in windows of 72 words; it is
    asked for the values of fields that stand in the text, each after the text up to there; and `verify.membership`
    compares its loss. The same is asked of other records of the training data, as the positive control.

    Args:
        person: so that no column is named that names the person.
        material: as for `execution.execute`.
        sample: ask about at most so many records of each group, drawn at random.

    Cost: for each record one row for its loss, one or two for its text, and one for each field; never-taught records
    are read twice for the loss. For 200 records of each group with five fields that is about 5,000 rows.

    Raises:
        UserError: no records to ask about, and as `case_of` and `load`.
        NotFiniteError: the model's numbers are not finite.
    """
    asked_for = _questions(id, impact, material, sample)
    loaded = load(model, device=device) if isinstance(model, str) else model
    asker = _Asker(loaded, progress, asked_for.rows(loaded))
    columns = {group: by_column(of, asker.given(of)) for group, of in asked_for.fields.items()}
    measures = (*_extraction(asker, asked_for.items), compare_fields(columns), _membership(asker, asked_for.cases))
    return ModelImpact(
        model=loaded.digest(),
        records=impact.found().records,
        asked=asked_for.records["person"],
        others=asked_for.records["others"],
        never=asked_for.records["never"],
        measures=measures,
        fields=_columns(columns, person),
        passes=asker.done,
    )


@dataclass(frozen=True)
class _Questions:
    """What is asked of each group: the number of its records, their texts and fields, and the cases for membership."""

    records: Mapping[str, int]
    items: Mapping[str, Sequence[Item]]
    fields: Mapping[str, Sequence[FieldValue]]
    cases: Mapping[str, Case]

    def rows(self, model: Model) -> int:
        """The forward passes of one row that all questions take."""
        texts = sum(map(len, (*self.items.values(), *self.fields.values())))
        return texts + sum(int(membership_cost(model, case, Setting())) for case in self.cases.values())


def _questions(id: str, impact: Impact, material: Material, sample: int) -> _Questions:
    if sample < 1:
        raise UserError(f"--sample {sample} leaves no record to ask about; give 1 or more.")
    records = case_of(id, impact, material).records
    passages = {group: _drawn(records[f"{role}_passage"], sample, group) for group, role in ROLES.items()}
    cases = {
        group: Case.of(passages[group], twins=passages["never"], name=id, purpose="privacy", unit="item", seed=SEED)
        for group in ("person", "others")
    }
    items = {group: [*case.forget.working, *case.forget.sealed] for group, case in cases.items()}
    items["never"] = [*cases["person"].holdout.working, *cases["person"].holdout.sealed]
    texts = {group: [passage.text for passage in of] for group, of in passages.items()}
    found = field_values(material, {text for of in texts.values() for text in of})
    fields = {group: [value for text in of for value in found.get(text, ())] for group, of in texts.items()}
    return _Questions({group: len(of) for group, of in passages.items()}, items, fields, cases)


@dataclass
class _Asker:
    """Asks in batches, counts rows, and says how far it is."""

    model: Model
    progress: Progress | None
    total: int
    done: int = field(default=0)

    def strengths(self, items: Sequence[Item]) -> list[float]:
        """The extraction strength of each item."""
        out: list[float] = []
        for part in chunks(len(items), ROWS):
            out += asked(self.model, items[part])
            self.step(len(items[part]))
        return self._finite(out, out)

    def given(self, values: Sequence[FieldValue]) -> list[float]:
        """Whether greedy decoding gives each value in full, 0 or 1."""
        out: list[float] = []
        logprob: list[float] = []
        for part in chunks(len(values), ROWS):
            found = score(self.model, [v.before for v in values[part]], [v.value for v in values[part]])
            out += found.greedy.double().tolist()
            logprob += found.logprob.tolist()
            self.step(len(values[part]))
        return self._finite(out, logprob)

    def step(self, rows: int) -> None:
        self.done += rows
        if self.progress:
            self.progress(TASK, self.done, self.total)

    def _finite(self, out: list[float], numbers: list[float]) -> list[float]:
        if np.isnan(numbers).any():
            raise NotFiniteError(
                f"{self.model.name} gives numbers that are not finite for {int(np.isnan(numbers).sum())} of "
                f"{len(numbers)} questions, so LOKA cannot say what it shows; check its weights."
            )
        return out


def _drawn(passages: Sequence[Record], most: int, group: str) -> list[Passage]:
    drawn = passages if len(passages) <= most else random.Random(f"{SEED}/{group}").sample(passages, most)
    return [passage for passage in drawn if isinstance(passage, Passage)]


def _extraction(asker: _Asker, items: Mapping[str, Sequence[Item]]) -> tuple[Measure, Measure]:
    """Extraction strength, and the share of records that are given in full, by record."""
    strength, full = {}, {}
    for group, of in items.items():
        by_record: dict[str, list[float]] = {}
        for item, value in zip(of, asker.strengths(of), strict=True):
            by_record.setdefault(unit_key(item), []).append(value)
        strength[group] = [float(np.mean(values)) for values in by_record.values()]
        full[group] = [float(min(values) == 1) for values in by_record.values()]
    return _measure("extraction", strength), _measure("in full", full)


def _measure(name: str, values: Mapping[str, Sequence[float]]) -> Measure:
    found = {group: limits(of, level=LEVEL) for group, of in values.items()}
    person, others = (_group(found[group], found["never"], len(values[group])) for group in ("person", "others"))
    return Measure(name, person, others)


def _group(own: Limits, never: Limits, units: int) -> Group:
    more = lead(own, never)
    return Group(round(own.value, 6), round(never.value, 6), units, round(more.low, 6), round(more.high, 6))


def by_column(values: Sequence[FieldValue], given: Sequence[float]) -> dict[str, list[float]]:
    """By column, how often each different value is given: a value in many records of one person is one unit."""
    every: dict[str, dict[str, list[float]]] = {}
    for each, right in zip(values, given, strict=True):
        every.setdefault(each.column, {}).setdefault(each.value, []).append(right)
    return {column: [float(np.mean(of)) for of in by_value.values()] for column, by_value in every.items()}


def compare_fields(values: ByColumn) -> Measure:
    """The values of fields that are given in full, by group and column as `by_column` gives them."""
    person, others = (_standardised(values[group], values["never"]) for group in ("person", "others"))
    refused = "" if person else "No field's value stands in the text of the person's records and of never-taught ones."
    return Measure("fields", person, others, refused)


def _standardised(own: Mapping[str, Sequence[float]], never: Mapping[str, Sequence[float]]) -> Group | None:
    """The mean over a group's values against never-taught ones of the same columns, in the same proportions.

    Columns of one record go together, so the widths of their intervals add up.
    """
    both = [column for column in own if column in never]
    if not both:
        return None
    units = sum(len(own[column]) for column in both)
    weights = [len(own[column]) / units for column in both]
    mine, theirs = (_weighted([limits(side[column], level=LEVEL) for column in both], weights) for side in (own, never))
    return _group(mine, theirs, units)


def _weighted(found: Sequence[Limits], weights: Sequence[float]) -> Limits:
    value, low, high = np.dot(weights, [(each.value, each.low, each.high) for each in found])
    return Limits(float(value), float(low), float(high))


def _membership(asker: _Asker, cases: Mapping[str, Case]) -> Measure:
    """The AUC of the loss, if the texts alone do not give the sides away."""
    groups, refused = {}, ""
    for group, case in cases.items():
        found = membership(asker.model, case)
        asker.step(int(membership_cost(asker.model, case, Setting())))
        if found.value is None:
            refused = refused or found.meaning
            continue
        auc = found.details["auc"]["loss"]  # type: ignore[index,call-overload]
        never = len({item.unit for item in case.holdout.working})
        between = auc_limits(float(auc), found.n, never, level=LEVEL)  # type: ignore[arg-type]
        low, high = (round(bound - 0.5, 6) for bound in (between.low, between.high))
        groups[group] = Group(round(between.value, 6), 0.5, found.n, low, high)
    return Measure(SUPPORTING, groups.get("person"), groups.get("others"), refused)


def _columns(values: ByColumn, person: Person) -> tuple[FieldShare, ...]:
    """The columns that both sides have, those with most values first; a name that names the person is replaced."""
    own, never = values["person"], values["never"]
    both = sorted((c for c in own if c in never and c), key=lambda c: -len(own[c]))[:LISTED]
    return tuple(_share(column, i, own, never, person) for i, column in enumerate(both, 1))


def _share(
    column: str, number: int, own: Mapping[str, Sequence[float]], never: Mapping[str, Sequence[float]], person: Person
) -> FieldShare:
    name = f"column-{number}" if names_person(column, person) else column
    mine, theirs = (round(float(np.mean(side[column])), 6) for side in (own, never))
    return FieldShare(name, mine, len(own[column]), theirs, len(never[column]))
