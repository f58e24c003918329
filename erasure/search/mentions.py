"""From words that may stand for parts of names to the best rule that joins them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from .folding import words
from .names import PARTICLES, TITLES, Near, Part, Slip
from .rules import RULES, Rule

GAP = 2  # words between a given and a family name


class Mention(NamedTuple):
    """The best rule for one name, and the misspelt words that it rests on."""

    rule: Rule
    misspelt: tuple[str, ...] = ()


class _Spot(NamedTuple):
    """A word, or two that were parted, that may stand for a part of a name."""

    start: int
    end: int
    slip: Slip
    word: str


def mentions(texts: Sequence[str], near: Callable[[str], Near]) -> dict[int, Mention]:
    """The best mention of each name in a record's texts, by the name's number.

    Args:
        near: the parts that a word may stand for.
    """
    text = "\n".join(texts)
    said = words(text)
    spots = _spots(said, near)
    found: dict[int, Mention] = {}
    for name in dict.fromkeys(part.name for part in spots):
        by_role = {part.role: where for part, where in spots.items() if part.name == name}
        made = list(_of_name(said, text, by_role))
        # fields are looked at only where the words do not say more
        if not any(m.rule.confidence >= RULES["fields"].confidence for m in made) and _in_fields(texts, name, near):
            made.append(Mention(RULES["fields"]))
        if made:
            found[name] = max(made, key=lambda m: m.rule.confidence)
    return found


def _spots(said: list[str], near: Callable[[str], Near]) -> dict[Part, list[_Spot]]:
    """Where each part may stand, single words first, then words that were parted beside these."""
    found: dict[Part, list[_Spot]] = {}
    around: set[int] = set()
    for i, word in enumerate(said):
        for part, slip in near(word).items():
            found.setdefault(part, []).append(_Spot(i, i + 1, slip, word))
            if part.role != "initial":
                around.update(range(i - GAP - 2, i + GAP + 2))
    for i in sorted(around):
        if 0 <= i < len(said) - 1 and not _stands(said[i], near) and not _stands(said[i + 1], near):
            joined = said[i] + said[i + 1]
            for part, slip in near(joined).items():
                if slip <= Slip.SCANNED and part.role != "initial":
                    found.setdefault(part, []).append(_Spot(i, i + 2, Slip.SCANNED, joined))
    return found


def _stands(word: str, near: Callable[[str], Near]) -> bool:
    return any(part.role in ("given", "family", "single") and slip == Slip.SAME for part, slip in near(word).items())


def _of_name(said: list[str], text: str, spots: dict[str, list[_Spot]]) -> Iterator[Mention]:
    """All mentions of one name."""
    families, middles = spots.get("family", []), spots.get("middle", [])
    for single in spots.get("single", []):
        yield Mention(RULES["single" if single.slip <= Slip.SCANNED else "family"], _misspelt([single]))
    for whole in spots.get("whole", []):
        yield _graded(("joined", "misspelt", "twice misspelt"), [whole])
    for family in families:
        for given in spots.get("given", []):
            if (rule := _order(said, given, family, middles)) is not None:
                yield _graded((rule, "misspelt", "twice misspelt"), [given, family])
        for initial in spots.get("initial", []):
            if _is_initial(said, text, initial, family):
                rule = "initial" if family.slip <= Slip.SCANNED else "misspelt initial"
                yield Mention(RULES[rule], _misspelt([family]))
        if family.slip <= Slip.SCANNED:
            before = said[family.start - 1] if family.start else ""
            yield Mention(RULES["titled" if before in TITLES else "family"])
    for one, two in ((spots.get("given", []), middles), (middles, families)):
        for a in one:
            for b in two:
                if 0 <= b.start - a.end <= 1 and max(a.slip, b.slip) <= Slip.SCANNED and a.word != b.word:
                    yield Mention(RULES["partial"])


def _order(said: list[str], given: _Spot, family: _Spot, middles: list[_Spot]) -> str | None:
    """The rule for a given and a family name by their order and what stands between; `None` if too much does."""
    first, second = sorted((given, family))
    between = range(first.end, second.start)
    if second.start < first.end:
        return None
    known = {i for m in middles for i in range(m.start, m.end)}
    others = [i for i in between if i not in known and said[i] not in PARTICLES]
    if len(others) > GAP or len(between) > 2 * GAP + 2:
        return None
    return "middle" if others else "name" if given.start < family.start else "reversed"


def _graded(rules: tuple[str, str, str], spots: list[_Spot]) -> Mention:
    """The rule by how much is misspelt: nothing, signs that look alike, a letter of one part, more."""
    slips = sorted(spot.slip for spot in spots)
    if slips[-1] <= Slip.SCANNED:
        return Mention(RULES[rules[0] if slips[-1] == Slip.SAME else "scanned"])
    once = slips[-1] == Slip.LETTER and slips[:-1] <= [Slip.SCANNED]
    return Mention(RULES[rules[1] if once else rules[2]], _misspelt(spots))


def _misspelt(spots: list[_Spot]) -> tuple[str, ...]:
    return tuple(spot.word for spot in spots if spot.slip > Slip.SCANNED)


def _is_initial(said: list[str], text: str, initial: _Spot, family: _Spot) -> bool:
    """Whether a single letter is an initial. `a`, `s` and the like may be words: these need a capital or a dot."""
    between = said[initial.end : family.start] if initial.start < family.start else said[family.end : initial.start]
    if len(between) > 1 or any(len(w) > 1 and w not in PARTICLES for w in between):
        return False
    if initial.word not in "aeiosuy":
        return True
    letter = initial.word
    return re.search(rf"(?<![\w'\u2019]){letter.upper()}(?!\w)|(?<![\w'\u2019]){letter}\.", text) is not None


def _in_fields(texts: Sequence[str], name: int, near: Callable[[str], Near]) -> bool:
    """Whether one field is the given name and another the family name, and nothing else."""
    roles = set()
    for text in texts if len(texts) > 1 else ():
        said = words(text) if len(text) < 80 else []
        for role in ("given", "family"):
            if said and near(said[-1 if role == "family" else 0]).get(Part(name, role)) == Slip.SAME:
                others = said[:-1] if role == "family" else said[1:]
                roles |= {role} if all(w in PARTICLES or near(w) for w in others) else set()
    return len(roles) == 2
