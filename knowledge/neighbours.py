"""What else of the forgotten relations a model has to say, about subjects that no list of the case names."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import UserError
from ..model.generate import continuations
from .case import Case
from .fact import Fact

if TYPE_CHECKING:
    from ..model import Model

SUBJECT, ANSWER = 10, 4  # tokens, at most
ASKED = 256  # times that a template's beginning is continued


def neighbours(model: Model, case: Case, n: int) -> list[Fact]:
    """Up to `n` facts of each forgotten relation that the original states by itself, right or wrong.

    A working template's beginning is continued by sampling, and what stands before the template's next word is taken
    for a subject ("The capital city of | Burgundy | is called"); the answer is the likeliest continuation behind a
    template drawn for it. Left out are subjects that the case names in any place, and what states an answer that is to
    be forgotten or is sealed: it may be the same fact by another name ("England" for the United Kingdom), and what is
    rehearsed must be neither forgotten nor measured. A template that begins or ends with its subject yields none.
    Seeded, and done once for a model, before any edit.

    Cost: `SUBJECT` cached forward passes over `ASKED` rows a template, and `ANSWER` over `n` rows a relation.
    """
    key = "neighbours", case.digest, case.seed, n
    if key not in model.memo:
        if model.edits:
            raise UserError("neighbours are sampled from the original model; sample them before an edit is applied.")
        model.memo[key] = [f for relation in case.forgotten_relations for f in _of(model, case, relation, n)]
    return model.memo[key]


def _of(model: Model, case: Case, relation: str, n: int) -> list[Fact]:
    templates = list(dict.fromkeys(_templates(case, relation)))
    subjects = list(dict.fromkeys(s for head, tail in _by_head(templates) for s in _subjects(model, case, head, tail)))
    rng = random.Random(case.seed)
    drawn = rng.sample(subjects, min(n, len(subjects)))
    prompts = [head + s + tail for s in drawn for head, tail in [rng.choice(templates)]]
    answers = continuations(model, prompts, tokens=ANSWER)
    found = [Fact(s, relation, p, a) for s, p, a in zip(drawn, prompts, answers, strict=True) if a]
    held = {a for f in (*case.forget.working, *_sealed(case)) if f.relation == relation for a in f.answers}
    return [f for f in found if not any(_states(f.answer, a) for a in held)]


def _states(text: str, answer: str) -> bool:
    """Whether a continuation, which may break off inside it, gives the answer."""
    return answer.startswith(text) or re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text) is not None


def _templates(case: Case, relation: str) -> Iterator[tuple[str, str]]:
    """What stands before and behind the subject, where something does on both sides."""
    fact = next(f for f in case.forget.working if f.relation == relation)
    for prompt in fact.prompts:
        head, _, tail = prompt.partition(fact.subject)
        if head.strip() and tail.strip():
            yield head, tail


def _by_head(templates: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    yield from {head: (head, tail) for head, tail in reversed(templates)}.values()


def _subjects(model: Model, case: Case, head: str, tail: str) -> Iterator[str]:
    """What the model puts between the two."""
    named = {f.subject.casefold() for f in _all(case)}
    following = re.match(r"\s*\S+", tail)
    assert following is not None
    for text in continuations(model, [head.rstrip()] * ASKED, tokens=SUBJECT, seed=case.seed):
        subject, found, _ = text.partition(following[0])
        subject = subject.strip()
        folded = subject.casefold()
        if found and subject and not any(w in folded or folded in w for w in named):
            yield subject


def _all(case: Case) -> Iterator[Fact]:
    for split in (case.forget, case.retain, case.twins):
        yield from split.working
    yield from (*_sealed(case), *case.aside)


def _sealed(case: Case) -> Iterator[Fact]:
    for split in (case.forget, case.retain, case.twins):
        yield from split.sealed
