"""What else of the forgotten relations a model has to say, about subjects that no list of the case names."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import UserError
from ..model.generate import continuations
from .case import Case
from .fact import Fact
from .scoring import score

if TYPE_CHECKING:
    from ..model import Model

SUBJECT, ANSWER = 6, 4  # tokens, at most; of the former with the template's next word
ASKED = 1024  # times that a template's beginning is continued


def neighbours(model: Model, case: Case, n: int) -> list[Fact]:
    """Up to `n` facts of each forgotten relation that the original states by itself, right or wrong.

    A working template's beginning is continued by sampling, and what stands before the template's next word is taken
    for a subject ("The capital city of | Burgundy | is called"); the answer is the likeliest continuation behind a
    template drawn for it. Much of what is sampled is no subject at all, so these are the `n` that the model has most to
    say of: `p * log(p / q)` is highest, with `p` the answer's probability, and `q` its geometric mean behind the same
    template about the two subjects sampled next. Left out are subjects that the case names in any place, and what
    states an answer that is to be forgotten or is sealed: it may be the same fact by another name ("England" for the
    United Kingdom), and what is rehearsed must be neither forgotten nor measured. A template that begins or ends with
    its subject yields none.
    Seeded, and done once for a model, before any edit.

    Cost: `SUBJECT` cached forward passes over `ASKED` rows a template's beginning, `ANSWER` over a row a subject, and
    three more over these.
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
    behind = [rng.choice(templates) for _ in subjects]
    prompts = [head + s + tail for s, (head, tail) in zip(subjects, behind, strict=True)]
    answers = continuations(model, prompts, tokens=ANSWER)
    held = {a for f in (*case.forget.working, *_sealed(case)) if f.relation == relation for a in f.answers}
    fit = [i for i, a in enumerate(answers) if a and not any(_states(a, h) for h in held)]
    told = _told(model, [subjects[i] for i in fit], [behind[i] for i in fit], [answers[i] for i in fit])
    best = sorted(range(len(fit)), key=lambda i: -told[i])[:n]
    return [Fact(subjects[i], relation, prompts[i], answers[i]) for i in (fit[j] for j in best)]


def _told(model: Model, subjects: list[str], behind: list[tuple[str, str]], answers: list[str]) -> list[float]:
    """How much is said of each subject in particular: what makes its answer likelier than behind others."""

    def logprob(subjects: list[str]) -> Tensor:
        prompts = [head + s + tail for s, (head, tail) in zip(subjects, behind, strict=True)]
        return score(model, prompts, answers).logprob

    if not subjects:
        return []
    own = logprob(subjects)
    others = [logprob(subjects[i:] + subjects[:i]) for i in (1, 2)]
    return (own.exp() * (own - torch.stack(others).mean(0))).tolist()


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
