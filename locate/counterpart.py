"""The counterfactual prompt of an item: one of the same form to which its answer is wrong.

Where nothing in a case has another answer, an item is compared with what the model was never taught, or else with
neutral text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from .._util.errors import UserError
from ..knowledge import Case, Item
from ..knowledge.kinds import kind_of
from ..knowledge.neutral import neutral_working
from ..knowledge.never_taught import invented_names
from ..model import Model

NEVER_TAUGHT = "something that the model was never taught"
NEUTRAL = "neutral text"
Find = Callable[[Case, Item, Random], str | None]


def counterpart(model: Model, case: Case, item: Item) -> str:
    """The counterfactual prompt of an item, drawn by the case's seed where it has none of its own.

    Raises:
        UserError: nothing to compare with, neutral text included.
    """
    for find, _ in CHOICES:
        if found := find(case, item, _rng(case, item)):
            return found
    texts = neutral_working(model, case)
    if not texts:
        raise UserError(
            f"there is nothing to compare {item.prompt[:60]!r} with: no other item of {item.relation!r} has another "
            "answer, and the neutral working text is empty; add items or text to the case."
        )
    return _rng(case, item).choice(texts)


def other_subjects(case: Case, item: Item) -> list[str]:
    """The other subjects of an item's relation to which its answer is wrong, sorted."""
    answers = case.spec.answers(item.relation)
    return sorted(s for s, answer in answers.items() if s != item.subject and answer not in item.answers)


def substitutes(case: Case) -> Iterator[str]:
    """What locating compares with where nothing in the case has another answer: a sentence for each relation."""
    found = {i.relation: substitute for i in case.forget.working if (substitute := _substitute(case, i))}
    yield from (f"Nothing else in {r} has another answer, so locating compares with {of}." for r, of in found.items())


def _substitute(case: Case, item: Item) -> str | None:
    return next((substitute for find, substitute in CHOICES if find(case, item, _rng(case, item))), NEUTRAL)


def _rng(case: Case, item: Item) -> Random:
    return Random(f"{case.seed}/counterpart/{item.relation}/{item.subject or item.unit}")


def _drawn(prompts: Sequence[str], rng: Random) -> str | None:
    return rng.choice(prompts) if prompts else None


def _own(case: Case, item: Item, rng: Random) -> str | None:
    return item.counterfactual or None


def _about_another(case: Case, item: Item, rng: Random) -> str | None:
    """The same prompt about another subject of its relation."""
    subjects = other_subjects(case, item) if item.prompt.slots else []
    return item.prompt.about(rng.choice(subjects)) if subjects else None


def _another_item(case: Case, item: Item, rng: Random) -> str | None:
    """The prompt of another item of its kind. Facts of other relations are no counterparts."""
    if kind_of(item).shared:
        return None
    near = [i for i in (*case.forget.working, *case.retain.working, *case.twins.working) if i.kind == item.kind]
    return _drawn(sorted({str(i.prompt) for i in near if i.unit != item.unit and i.answer != item.answer}), rng)


def _about_nobody(case: Case, item: Item, rng: Random) -> str | None:
    """The same prompt about a twin of the relation, or about an invented name."""
    if not item.prompt.slots:
        return None
    twins = {i.subject for i in case.twins.working if i.relation == item.relation and i.subject} - {item.subject}
    return item.prompt.about(rng.choice(sorted(twins) or invented_names(case.spec.answers(item.relation), 1, rng)))


def _never_taught_item(case: Case, item: Item, rng: Random) -> str | None:
    return _drawn(sorted({str(i.prompt) for i in case.twins.working if i.kind == item.kind} - {str(item.prompt)}), rng)


# Where a counterfactual prompt comes from, best first, and what it is where it is a substitute.
CHOICES: tuple[tuple[Find, str | None], ...] = (
    (_own, None),
    (_about_another, None),
    (_another_item, None),
    (_about_nobody, NEVER_TAUGHT),
    (_never_taught_item, NEVER_TAUGHT),
)
