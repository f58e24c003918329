"""Answers that stand in other answers of a pool, as "New" and "York" stand in "New York"."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .item import Item
from .kinds import kind_of
from .words import contains, words

LAST = chr(sys.maxunicode)


class Spellings:
    """Every way to spell the answers of a pool, and which of them have others in them.

    Args:
        answers: each answer with the aliases that a fact gives it.
        others: other texts of the pool.
    """

    def __init__(self, answers: Iterable[Sequence[str]] = (), others: Iterable[str] = ()) -> None:
        self._of: dict[str, set[str]] = {}
        for answer, *aliases in answers:
            self._of.setdefault(answer, set()).update(aliases)
        self._every = sorted({*self._of, *(alias for of in self._of.values() for alias in of), *others})
        self._words = {text: words(text, symbols=True) for text in self._every}
        self._with: dict[str, list[str]] = {}
        for text, of in self._words.items():
            for word in set(of):
                self._with.setdefault(word, []).append(text)

    def rivals(self, answers: Sequence[str]) -> tuple[str, ...]:
        """The texts that begin with an answer or have its words, and have other words than each, sorted.

        "Newark" is a rival of "New", since its first token may be "New". An alias that another fact gives the same
        answer is none.

        >>> Spellings(others=["New", "New York", "Newark", "Washington, DC", "York"]).rivals(["New", "Washington DC"])
        ('New York', 'Newark')
        >>> Spellings([["Bern", "Berne"], ["Bergen"], ["Bern Port"], ["New Bern"]]).rivals(["Bern"])
        ('Bern Port', 'New Bern')
        """
        every = [*answers, *self._of.get(answers[0], ())]
        right = [words(answer, symbols=True) for answer in every]
        found = {text for answer in every for text in (*self._begun(answer), *self._having(answer))}
        return tuple(sorted(text for text in found if self._words[text] not in right))

    def _begun(self, answer: str) -> Sequence[str]:
        """The texts that begin with an answer."""
        return self._every[bisect_left(self._every, answer) : bisect_left(self._every, answer + LAST)]

    def _having(self, answer: str) -> Iterator[str]:
        """The texts with an answer's words side by side: of those with its rarest word."""
        each = [self._with.get(word, []) for word in words(answer, symbols=True)]
        return (text for text in min(each, key=len, default=[]) if contains(text, answer))


def with_answer(item: Item, new: str, pool: Spellings | None = None) -> Item:
    """The item with a new right answer, whose rivals are of a pool and of the old answers."""
    found = {text for of in (pool, Spellings(others=item.answers)) if of for text in of.rivals((new,))}
    return replace(item, answer=new, aliases=(), rivals=tuple(sorted(found)))


def larger_answers(item: Item) -> tuple[str, ...]:
    """The wrong answers in which a right one stands: who says "New York" does not say "York"."""
    return item.rivals if kind_of(item).shared else Spellings(others=item.foils).rivals(item.answers)


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
