"""Answers that begin other answers of a pool, as "New" begins "New York"."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .item import Item
from .words import words

LAST = chr(sys.maxunicode)


def rivals(pool: Sequence[str], answers: Sequence[str]) -> tuple[str, ...]:
    """The texts of a sorted pool that begin with one of the answers and have other words than each, sorted.

    "Newark" is one, since its first token may be the answer "New".

    >>> rivals(["New", "New York", "Newark", "Washington DC", "Washington, DC"], ["New", "Washington, DC"])
    ('New York', 'Newark')
    """
    right = [words(answer, symbols=True) for answer in answers]
    found = {text for a in answers for text in pool[bisect_left(pool, a) : bisect_left(pool, a + LAST)]}
    return tuple(sorted(text for text in found if words(text, symbols=True) not in right))


class Spellings:
    """Every way to spell the answers of a pool.

    Args:
        answers: each answer with the aliases that a fact gives it.
        others: other texts of the pool.
    """

    def __init__(self, answers: Iterable[Sequence[str]], others: Iterable[str] = ()) -> None:
        self._of: dict[str, set[str]] = {}
        for answer, *aliases in answers:
            self._of.setdefault(answer, set()).update(aliases)
        self._every = sorted({*self._of, *(alias for of in self._of.values() for alias in of), *others})

    def rivals(self, answers: Sequence[str]) -> tuple[str, ...]:
        """The rivals of an answer and its aliases. An alias that another fact gives the same answer is none.

        >>> Spellings([["Bern", "Berne"], ["Bergen"], ["Bern Port"]]).rivals(["Bern"])
        ('Bern Port',)
        """
        return rivals(self._every, [*answers, *self._of.get(answers[0], ())])


def with_answer(item: Item, new: str, pool: Iterable[str] = ()) -> Item:
    """The item with a new right answer, whose rivals are of a pool and of the old answers."""
    return replace(item, answer=new, aliases=(), rivals=rivals(sorted({*pool, *item.answers}), (new,)))


def whole_answers(tokens: Sequence[tuple[Sequence[int], Sequence[int]]], logprobs: Tensor) -> Tensor:
    """Log-probabilities of a prompt's answers, each without what goes on to longer ones of them, `[answer]`.

    The probability of an answer's tokens counts whatever follows. Where others begin with these tokens, their
    probability is taken off, down to what rounding leaves.

    Args:
        tokens: of the prompt and of each answer, as `loka.model.split` gives them.
        logprobs: of each answer's tokens.
    """
    rows = [(len(head), *tail) for head, tail in tokens]  # heads of the same length are the same
    place = {row: i for i, row in enumerate(rows)}
    longer: dict[tuple[int, ...], list[int]] = {}
    for row, i in place.items():
        begins = next((row[:n] for n in range(len(row) - 1, 1, -1) if row[:n] in place), None)
        if begins is not None:
            longer.setdefault(begins, []).append(i)
    out = logprobs.clone()
    for i, row in enumerate(rows):
        if row in longer and not torch.isneginf(logprobs[i]):
            gone = (logprobs[longer[row]].logsumexp(0) - logprobs[i]).exp()
            out[i] += (1 - gone).clamp(min=torch.finfo(gone.dtype).eps).log()
    return out
