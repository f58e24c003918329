"""From words that may stand for parts of names to the best rule that joins them."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from .folding import words
from .names import PARTICLES, TITLES, Near, Slip
from .rules import RULES, Rule

GAP = 2  # words between a given and a family name, beside particles and middle names
REACH = 7  # words from one part to another at most
LONG = 8  # letters of two names in one word; shorter ones are too close to other words to be misspelt
SHORT_VALUE = 80  # signs of a value that may be a name alone


class Mention(NamedTuple):
    """The best rule for one name, the misspelt words that it rests on, and the best rule that rests on none."""

    rule: Rule
    misspelt: tuple[str, ...] = ()
    otherwise: Rule | None = None


class _Spot(NamedTuple):
    """A word that may stand for a part of a name, by its place among the words."""

    at: int
    slip: Slip
    word: str


def mentions(texts: Sequence[str], said: Sequence[str], close: Mapping[str, Near]) -> dict[int, Mention]:
    """The best mention of each name in a record, by the name's number.

    Args:
        texts: the record's values.
        said: their words.
        close: which of the words may stand for which parts.
    """
    text = "\n".join(texts)
    found: dict[int, Mention] = {}
    for name, spots in _spots(said, close).items():
        made = list(_of_name(said, text, spots))
        # fields are looked at only where the words do not say more
        if not any(m.rule.confidence >= RULES["fields"].confidence for m in made) and _in_fields(texts, spots):
            made.append(Mention(RULES["fields"]))
        if made:
            found[name] = _best(made)
    return found


def _best(made: Sequence[Mention]) -> Mention:
    best = max(made, key=lambda m: m.rule.confidence)
    sure = (m.rule for m in made if not m.misspelt)
    return best._replace(otherwise=max(sure, key=lambda rule: rule.confidence, default=None))


def _spots(said: Sequence[str], close: Mapping[str, Near]) -> dict[int, dict[str, list[_Spot]]]:
    """Where each part may stand, by the name's number and the part's role. Given names alone say nothing."""
    found: dict[int, dict[str, list[_Spot]]] = {}
    for i, word in enumerate(said):
        if word in close:
            for part, slip in close[word].items():
                found.setdefault(part.name, {}).setdefault(part.role, []).append(_Spot(i, slip, word))
    return {name: spots for name, spots in found.items() if not spots.keys() <= {"given", "initial"}}


def _of_name(said: Sequence[str], text: str, spots: dict[str, list[_Spot]]) -> Iterator[Mention]:
    """All mentions of one name."""
    families, middles, givens = (spots.get(role, []) for role in ("family", "middle", "given"))
    initials = _initials(spots.get("initial", []), text)
    for single in spots.get("single", []):
        yield Mention(RULES["single" if single.slip <= Slip.SCANNED else "family"], _misspelt([single]))
    for whole in spots.get("whole", []):
        if whole.slip <= Slip.SCANNED or len(whole.word) >= LONG:
            yield _graded(("joined", "misspelt", "twice misspelt"), [whole])
    for family in families:
        for given in _around(givens, family):
            if (rule := _order(said, given, family, middles)) is not None:
                yield _graded((rule, "misspelt", "twice misspelt"), [given, family])
        for initial in _around(initials, family):
            if _is_beside(said, initial, family):
                rule = "initial" if family.slip <= Slip.SCANNED else "misspelt initial"
                yield Mention(RULES[rule], _misspelt([family]))
        if family.slip <= Slip.SCANNED and len(family.word) > 2:
            before = said[family.at - 1] if family.at else ""
            yield Mention(RULES["titled" if before in TITLES else "family"])
    for one, two in ((givens, middles), (middles, families)):
        for a in one:
            for b in _around(two, a):
                exact = max(a.slip, b.slip) <= Slip.SCANNED and min(len(a.word), len(b.word)) > 1
                if 1 <= b.at - a.at <= 2 and exact and a.word != b.word:
                    yield Mention(RULES["partial"])


def _order(said: Sequence[str], given: _Spot, family: _Spot, middles: list[_Spot]) -> str | None:
    """The rule for a given and a family name by their order and what stands between; `None` if too much does."""
    first, second = sorted((given.at, family.at))
    if first == second:
        return None
    between = range(first + 1, second)
    known = {m.at for m in middles}
    others = [i for i in between if i not in known and said[i] not in PARTICLES]
    if len(others) > GAP:
        return None
    return "middle" if others else "name" if given.at < family.at else "reversed"


def _graded(rules: tuple[str, str, str], spots: list[_Spot]) -> Mention:
    """The rule by how much is misspelt: nothing, signs that look alike, a letter of one part, more."""
    slips = sorted(spot.slip for spot in spots)
    if slips[-1] <= Slip.SCANNED:
        return Mention(RULES[rules[0] if slips[-1] == Slip.SAME else "scanned"])
    once = slips[-1] == Slip.LETTER and slips[:-1] <= [Slip.SCANNED]
    return Mention(RULES[rules[1] if once else rules[2]], _misspelt(spots))


def _misspelt(spots: list[_Spot]) -> tuple[str, ...]:
    return tuple(spot.word for spot in spots if spot.slip > Slip.SCANNED)


def _around(spots: list[_Spot], of: _Spot) -> list[_Spot]:
    """The spots within a few words of one, so that a long text takes no longer than its length."""
    return spots[bisect_left(spots, of.at - REACH, key=_place) : bisect_right(spots, of.at + REACH, key=_place)]


def _place(spot: _Spot) -> int:
    return spot.at


def _initials(spots: list[_Spot], text: str) -> list[_Spot]:
    """Single letters that may be initials. `a`, `s` and the like may be words: the text needs a capital or a dot."""
    doubted = {spot.word for spot in spots} & set("aeiosuy")
    words_only = {
        x for x in doubted if not re.search(rf"(?<![\w'\u2019]){x.upper()}(?!\w)|(?<![\w'\u2019]){x}\.", text)
    }
    return [spot for spot in spots if spot.word not in words_only]


def _is_beside(said: Sequence[str], initial: _Spot, family: _Spot) -> bool:
    """Whether an initial stands beside a family name, with another initial or a particle between at most."""
    first, second = sorted((initial.at, family.at))
    between = said[first + 1 : second]
    return len(between) <= 1 and all(len(w) == 1 or w in PARTICLES for w in between)


def _in_fields(texts: Sequence[str], spots: Mapping[str, list[_Spot]]) -> bool:
    """Whether one value is the given name and another the family name, with nothing else but middle names."""
    of = {role: {s.word for s in found if s.slip == Slip.SAME} for role, found in spots.items()}
    if len(texts) < 2 or not of.get("given") or not of.get("family"):
        return False
    beside = PARTICLES | of.get("middle", set())
    short = [words(text) for text in texts if len(text) < SHORT_VALUE]
    return all(any(_is_value(said, of[role], beside) for said in short) for role in ("given", "family"))


def _is_value(said: Sequence[str], forms: set[str], beside: Set[str]) -> bool:
    whole = "".join(said) in forms  # `O'Brien`
    return whole or (any(w in forms for w in said) and all(w in forms or w in beside for w in said))
