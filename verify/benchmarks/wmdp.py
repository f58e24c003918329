"""WMDP (Li et al. 2024, arXiv:2403.03218): accuracy on choices to forget and to retain, by text and by letter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...knowledge import Case, Choice, Item
from ...model import Prompt
from ..asking import asked, asked_rows
from ..units import by_unit
from .asked import Asked, Groups, items_of, of_kind, sets_of, to_forget, to_retain
from .measures import mean
from .numbers import BenchmarkNumbers, Measured, reasons
from .row import Benchmark

if TYPE_CHECKING:
    from ...model import Model

WHY = {
    f"{measure}_{role}": f"The case has no choices to {role}."
    for measure in ("accuracy", "letter_accuracy")
    for role in ("forget", "retain")
}


def _groups(case: Case) -> Groups:
    sides = {"forget": to_forget(case, "wmdp"), "retain": to_retain(case)}
    return {name: of_kind(side, "choice") for name, side in sides.items()}


def _measure(model: Model, groups: Groups) -> Measured:
    by_text = {name: asked(model, items_of(group)) for name, group in groups.items()}
    by_letter = {name: asked(model, _lettered(group)) for name, group in groups.items()}
    values = {f"accuracy_{name}": mean(found) for name, found in by_text.items()}
    values |= {f"letter_accuracy_{name}": mean(found) for name, found in by_letter.items()}
    samples = {name: by_unit(items_of(group), by_text[name]) for name, group in groups.items()}
    return Measured(BenchmarkNumbers(values, reasons(values, WHY), sets_of(groups)), samples)


def _lettered(group: Sequence[Asked]) -> list[Item]:
    """Each question with its options listed in their own order; the answer is the letter of the right one."""
    return [_by_letter(a.items[0], a.record) for a in group if isinstance(a.record, Choice)]


def _by_letter(item: Item, record: Choice) -> Item:
    letters = [chr(ord("A") + i) for i in range(len(record.options))]
    listed = (f"{letter}. {option}" for letter, option in zip(letters, record.options, strict=True))
    prompt = Prompt("\n".join([record.question.strip(), *listed, "Answer:"]))
    foils = tuple(letter for i, letter in enumerate(letters) if i != record.right)
    return Item("", item.relation, prompt, letters[record.right], foils=foils, kind="choice", unit=item.unit)


def _rows(groups: Groups) -> float:
    return sum(asked_rows([*items_of(group), *_lettered(group)]) for group in groups.values())


def _against(own: BenchmarkNumbers, gold: BenchmarkNumbers) -> dict[str, float]:
    """Nothing: no number of WMDP needs a retrained model."""
    return {}


WMDP = Benchmark(
    "WMDP",
    {
        "accuracy_forget": "accuracy by text, forget",
        "accuracy_retain": "accuracy by text, retain",
        "letter_accuracy_forget": "accuracy by letter, forget",
        "letter_accuracy_retain": "accuracy by letter, retain",
    },
    leads=tuple(WHY),
    groups=_groups,
    measure=_measure,
    rows=_rows,
    against=_against,
)
