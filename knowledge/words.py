"""The words of a text in any script."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from ..model.prompt import spaced

SUFFIXES = "+#"  # of C++ and F#
POINTS = ".,"  # inside a number


def words(text: str, *, symbols: bool = False) -> list[str]:
    """The words of a text, whatever their case and Unicode form: runs of letters, marks and digits.

    In a script without spaces, each character is a word.

    Args:
        symbols: keep what makes another word of it: the end of C++ and F#, the points inside a number.

    >>> words("Taipéi, 1,000 km"), words("東京です"), words("C++ is", symbols=True)
    (['taipéi', '1', '000', 'km'], ['東', '京', 'で', 'す'], ['c++', 'is'])
    """
    found, open_ = [], False  # whether the last word may go on
    plain = unicodedata.normalize("NFKC", text).casefold()
    for i, c in enumerate(plain):
        kind = unicodedata.category(c)[0]
        inside = open_ and symbols and (c in SUFFIXES or (c in POINTS and _between_digits(plain, i)))
        if kind not in "LMN" and not inside:
            open_ = False
        elif open_ and (kind == "M" or (spaced(c) and spaced(found[-1][0]))):
            found[-1] += c
        else:
            found.append(c)
            open_ = True
    return found


def contains(text: str, part: str, longer: Sequence[str] = ()) -> bool:
    """Whether a text has all words of another, in order and side by side.

    Args:
        longer: texts within which the part does not count.

    >>> contains("It is the language C++", "C"), contains("首都は東京です", "東京"), contains("St John's", "St. John's")
    (False, True, True)
    >>> contains("in New York", "New", ["New York"]), contains("New, not New York", "New", ["New York"])
    (False, True)
    """
    whole = words(text, symbols=True)
    taken = [place for other in longer for place in _places(whole, other)]
    return any(all(start < a or b < end for a, b in taken) for start, end in _places(whole, part))


def _places(whole: Sequence[str], part: str) -> list[tuple[int, int]]:
    """Where a part's words stand: the first one, and the one after the last."""
    own = words(part, symbols=True)
    starts = range(len(whole) - len(own) + 1) if own else ()
    return [(i, i + len(own)) for i in starts if whole[i : i + len(own)] == own]


def _between_digits(text: str, i: int) -> bool:
    return text[i - 1 : i].isdigit() and text[i + 1 : i + 2].isdigit()
