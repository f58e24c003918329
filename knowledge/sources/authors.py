"""The name that texts about one person repeat."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

LETTER = r"[^\W\d_]"
APOSTROPHES = "'\u2019"
WORD = re.compile(rf"\({LETTER}+\)|(?:{LETTER}\.)+|{LETTER}+(?:[{APOSTROPHES}-]{LETTER}+)*")
POSSESSIVES = tuple(f"{apostrophe}s" for apostrophe in APOSTROPHES)
PARTICLE = re.compile(r"(?:al|bin|binti|da|de|del|den|der|di|do|dos|du|el|ibn|la|le|van|von|y|zu)(?:-|$)")
MOST = 6  # words of a name


def author(texts: Sequence[str]) -> str:
    """The name that stands in at least half of the texts: two or more capitalised words.

    It is the most frequent one, extended to the longest that contains it and still stands in half. Empty if no name
    is repeated so often.
    """
    counts = Counter(name for text in texts for name in set(names(text)))
    often = {name: n for name, n in counts.items() if 2 * n >= len(texts)}
    if not often:
        return ""
    first = max(often, key=lambda name: (often[name], len(name), name))
    return max((name for name in often if first in name), key=lambda name: (len(name), name))


def names(text: str) -> Iterator[str]:
    """Everything in a text that may be a name: two or more words in a row that begin with capitals.

    Particles, initials and nicknames in parentheses may stand inside.

    >>> sorted(names("Was Sara van Dyke's father born in Cape Town?"))
    ['Cape Town', 'Sara van Dyke', 'Was Sara', 'Was Sara van Dyke']
    """
    for run in _runs(text):
        for i, first in enumerate(run):
            for j in range(i + 2, min(i + MOST, len(run)) + 1):
                if first[0].isupper() and run[j - 1][0].isupper():
                    yield " ".join(run[i:j])


def _runs(text: str) -> Iterator[list[str]]:
    """The words that may belong to one name: one space between them, and nothing else."""
    run: list[str] = []
    end = 0
    for match in WORD.finditer(text):
        word = match.group()
        bare = word[:-2] if word.endswith(POSSESSIVES) else word
        if text[end : match.start()] != " " or not _belongs(bare):
            yield run
            run = []
        if _belongs(bare):
            run.append(bare)
        end = match.start() + len(bare)
    yield run


def _belongs(word: str) -> bool:
    """Whether a word can stand in a name."""
    return word.strip("(")[:1].isupper() or bool(PARTICLE.match(word))
