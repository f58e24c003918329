"""Names as parts, and which words may stand for which part."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from ..._util.errors import UserError
from ..extra import extra
from .folding import lookalike, spelled_out, words

PARTICLES = frozenset({
    "al", "bin", "bint", "da", "das", "de", "del", "della", "den", "der", "di", "do", "dos", "du", "e", "el", "ibn",
    "la", "le", "ter", "van", "von", "y", "zu", "zum", "zur",
})  # fmt: skip
TITLES = frozenset({
    "dr", "frau", "herr", "herrn", "madame", "miss", "mister", "mme", "mlle", "monsieur", "mr", "mrs", "ms", "prof",
    "senor", "senora", "sig", "signora", "sir",
})  # fmt: skip
_HYPHENS = re.compile(r"(\w+)[-'\u2019\u2010\u2011](\w+)")
_COLLAPSED = re.compile(r"(?<=[aou])e")  # `mueller` for a text with `ü`
# scripts that put no space between words
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


class Slip(IntEnum):
    """How far a word is from a part of a name."""

    SAME = 0
    SCANNED = 1
    LETTER = 2
    LETTERS = 3


class Part(NamedTuple):
    """A part of a name. Roles: `given`, `family`, `middle`, `whole` (written as one word), `initial`, `single`."""

    name: int
    role: str


Near = Mapping[Part, Slip]


@dataclass(frozen=True)
class Name:
    """One name of a person, by the folded forms of each part. A name of one word has only a family name."""

    given: frozenset[str]
    family: frozenset[str]
    middle: frozenset[str] = frozenset()

    @property
    def whole(self) -> frozenset[str]:
        """Two parts as one word, in both orders."""
        pairs = [(a, b) for a in self.given | self.middle for b in self.family | self.middle if self.given and a != b]
        joined = frozenset([a + b for a, b in pairs] + [b + a for a, b in pairs])
        return joined - self.given - self.middle - self.family

    @property
    def parts(self) -> dict[str, frozenset[str]]:
        """Forms by role, without the empty ones."""
        initials = frozenset(g[0] for g in self.given)
        found = {
            "given": self.given,
            "family" if self.given else "single": self.family,
            "middle": self.middle,
            "whole": self.whole,
            "initial": initials,
        }
        return {role: forms for role, forms in found.items() if forms}


def parse(text: str) -> Name:
    """A name's parts: the first word is the given name, the last the family name, unless a comma turns them round.

    Raises:
        UserError: no letters.
    """
    family, comma, given = text.partition(",")
    ordered = f"{given} {family}" if comma and given.strip() else text.replace(",", " ")
    said = [w for w in words(ordered) if not w.isdigit()]
    parts = [w for w in said if w not in PARTICLES | TITLES] or said
    if not parts:
        raise UserError(f"the name {text!r} has no letters; give the name as it is written.")
    joined = _joined(ordered)
    first, *between, last = parts if len(parts) > 1 else ["", *parts]
    longer = {form for word in between for form in _forms(word, ordered, joined) if len(word) > 1 or word in joined}
    given_forms = _forms(first, ordered, joined) if first else frozenset()
    family_forms = _forms(last, ordered, joined)
    return Name(given_forms, family_forms, frozenset(longer) - given_forms - family_forms)


def unspaced(text: str) -> str | None:
    """A name in a script without spaces, as it is searched for within a text; `None` for other names."""
    return "".join(words(text)) if _UNSPACED.search(text) else None


def _joined(text: str) -> dict[str, str]:
    """`annalena` by `anna` and by `lena` for `Anna-Lena`; likewise for an apostrophe."""
    found = {}
    for match in _HYPHENS.finditer(text):
        one, two = ("".join(words(part)) for part in match.groups())
        found[one] = found[two] = one + two
    return found


def _forms(word: str, text: str, joined: Mapping[str, str]) -> frozenset[str]:
    """The word, with umlauts as one and as two letters, with its neighbour across a hyphen, each also with an `s`."""
    plain, spelled = words(text), words(spelled_out(text))
    found = {word, *([spelled[plain.index(word)]] if word in plain else [])}
    found |= {_COLLAPSED.sub("", form) for form in found}
    found |= {joined[word]} if word in joined else set()
    return frozenset(found | {form + "s" for form in found if len(form) > 3})


class Lexicon:
    """Which words may stand for which part of a few names. Memory: a bounded set of words that were judged before."""

    MOST = 2**18

    def __init__(self, judge: Callable[[str], Near]) -> None:
        self._judge = judge
        self._seen: set[str] = set()
        self._near: dict[str, Near] = {}
        self._letters: dict[str, Near] = {}

    def close(self, said: list[str]) -> dict[str, Near]:
        """Those of these words that may stand for a part, with the parts. Initials count only beside other words."""
        different = set(said)
        if unseen := different - self._seen:
            self._learn(unseen)
        if self._near.keys().isdisjoint(different):
            return {}
        found = {word: self._near[word] for word in different if word in self._near}
        return found | {letter: near for letter in different if len(letter) == 1 and (near := self._initial(letter))}

    def near(self, word: str) -> Near:
        """The parts that this word may stand for."""
        return self.close([word]).get(word, {})

    def _initial(self, letter: str) -> Near:
        if letter not in self._letters:
            self._letters[letter] = self._judge(letter)
        return self._letters[letter]

    def _learn(self, unseen: Iterable[str]) -> None:
        if len(self._seen) > self.MOST:
            self._seen = set(self._near)
        for word in unseen:
            self._seen.add(word)
            if len(word) > 1 and not word.isdigit() and (near := self._judge(word)):
                self._near[word] = near


def judge_by(names: Iterable[Name]) -> Callable[[str], Near]:
    """A judge of words by the clear forms of these names.

    Raises:
        UserError: rapidfuzz is not installed.
    """
    distance = _distance()
    exact: dict[str, dict[Part, Slip]] = {}
    for i, name in enumerate(names):
        for role, forms in name.parts.items():
            for form in forms:
                exact.setdefault(form, {})[Part(i, role)] = Slip.SAME
    scanned: dict[str, dict[Part, Slip]] = {}
    for form, parts in exact.items():
        if len(form) > 2:
            scanned.setdefault(lookalike(form), {}).update(dict.fromkeys(parts, Slip.SCANNED))
    long = [(form, parts) for form, parts in exact.items() if len(form) > 3]

    def judge(word: str) -> Near:
        near: dict[Part, Slip] = {}
        for form, parts in long:
            most = allowed(form)
            if abs(len(word) - len(form)) <= most and (off := distance(word, form, score_cutoff=most)) <= most:
                for part in parts:
                    near[part] = min(near.get(part, Slip.LETTERS), Slip.LETTER if off == 1 else Slip.LETTERS)
        for found in (scanned.get(lookalike(word), {}) if len(word) > 2 else {}, exact.get(word, {})):
            near.update(found)
        return near

    return judge


def allowed(form: str) -> int:
    """How many letters of a part may be wrong, swapped, missing or too many."""
    return 0 if len(form) < 4 else 1 if len(form) < 8 else 2


def _distance() -> Callable[..., int]:
    with extra():
        from rapidfuzz.distance import OSA
    return OSA.distance
