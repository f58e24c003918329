"""Any file of the user's own: each column is a field of the record, by its name or as the user says."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from ..item import Kind
from ..kinds import KINDS, Choice, Fact, Pair, Passage, Question, Record
from .choices import choice
from .common import Cells, Table, each, passage, without


def columns(table: Table) -> list[Record]:
    """Records of any kind from columns with the names of its fields.

    A list of texts may be a single text; in CSV it is divided by `|`. Several answers are the answer and its aliases. A
    fact's prompts may have `{}` in the place of the subject. `right` is an index from 0, a letter, or an option's text.
    `questions` of a passage are objects with the fields of a question.

    Raises:
        UserError: rows with problems; the message lists them.
    """
    return each(table, MAKERS[table.kind])


def fields_of(kind: Kind) -> tuple[str, ...]:
    """The fields of a kind's records. Each may have a column."""
    return tuple(field.name for field in dataclasses.fields(KINDS[kind].record))


def kinds_of(columns: Collection[str]) -> list[Kind]:
    """The kinds whose records can be made from these columns."""
    return [kind for kind, names in REQUIRED.items() if all(name in columns for name in names)]


def _question(cells: Cells) -> Question:
    question, (answer, *more) = cells.text("question"), cells.answers("answer")
    aliases, wrong = _aliases(cells, answer, more), _wrong(cells, "wrong", answer)
    paraphrases = without(cells.texts("paraphrases"), question)
    return Question(
        question, answer, paraphrases, wrong, aliases, cells.optional("subject"), cells.optional("rephrased")
    )  # fmt: skip


def _fact(cells: Cells) -> Fact:
    subject, (answer, *more) = cells.text("subject"), cells.answers("answer")
    aliases, foils = _aliases(cells, answer, more), _wrong(cells, "foils", answer)
    prompt, *others = (p.replace("{}", subject) for p in (cells.text("prompt"), *cells.texts("paraphrases")))
    return Fact(subject, cells.optional("relation"), prompt, answer, aliases, foils, without(others, prompt))


def _passage(cells: Cells) -> Passage:
    about, questions = cells.optional("subject"), tuple(_questions(cells))
    return passage(cells, cells.text("text"), cells.optional("start"), about, questions)


def _choice(cells: Cells) -> Choice:
    return choice(cells, ("options",), "right", by_text=True, subject=cells.optional("subject"))


def _pair(cells: Cells) -> Pair:
    clean, counterfactual, answer, foil = (cells.text(name) for name in REQUIRED["pair"])
    pair = Pair(clean, counterfactual, answer, foil, cells.optional("subject"))
    for one, other in (("clean", "counterfactual"), ("answer", "foil")):
        if not cells.problems and getattr(pair, one) == getattr(pair, other):
            cells.refuse(f"{cells.column(one)!r} and {cells.column(other)!r} are the same; they must differ")
    return pair


def _aliases(cells: Cells, answer: str, more: Sequence[str]) -> tuple[str, ...]:
    return without(tuple(dict.fromkeys([*more, *cells.texts("aliases")])), answer)


def _wrong(cells: Cells, name: str, answer: str) -> tuple[str, ...]:
    """Wrong answers; one that is the right one is a problem."""
    found = cells.texts(name)
    if answer and answer in found:
        cells.refuse(f"{cells.column(name)!r} has the right answer {reprlib.repr(answer)} among the wrong ones")
    return found


def _questions(cells: Cells) -> Iterator[Question]:
    """The questions about a passage, which are objects in a list."""
    given = cells.value("questions")
    if given is not None and not isinstance(given, list):
        cells.refuse(f"{cells.column('questions')!r} must be a list of objects with question and answer")
        return
    for i, row in enumerate(given or (), 1):
        if not isinstance(row, Mapping):
            cells.refuse(f"question {i} is not an object with question and answer")
            continue
        inner = Cells(row)
        yield _question(inner)
        cells.problems += [f"question {i}: {problem}" for problem in inner.problems]


REQUIRED: dict[Kind, tuple[str, ...]] = {
    "fact": ("subject", "prompt", "answer"),
    "question": ("question", "answer"),
    "passage": ("text",),
    "choice": ("question", "options", "right"),
    "pair": ("clean", "counterfactual", "answer", "foil"),
}
MAKERS: dict[Kind, Callable[[Cells], Record]] = {
    "fact": _fact,
    "question": _question,
    "passage": _passage,
    "choice": _choice,
    "pair": _pair,
}
