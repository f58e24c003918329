"""Texts as folded words: lower case, without accents and punctuation, in one Unicode form."""

from __future__ import annotations

import html
import re
import unicodedata

# letters that Unicode does not take apart
_PLAIN = {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "\u0131": "i", "ħ": "h", "ŧ": "t"}
# what scanners confuse, folded to one form of each
_LOOKALIKES = (("rn", "m"), ("vv", "w"), ("cl", "d"), ("ii", "u"), ("0", "o"), ("1", "l"), ("5", "s"), ("8", "b"),
               ("4", "a"), ("3", "e"), ("6", "g"), ("i", "l"))  # fmt: skip
_SPELLED_OUT = {"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"}


class _Folding(dict[int, str]):
    """A table for `str.translate`, filled as letters are met. It is as quick as translating gets."""

    def __missing__(self, code: int) -> str:
        made = self[code] = _folded(chr(code))
        return made


def _folded(letter: str) -> str:
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", letter).casefold())
    return "".join(_PLAIN.get(p, p if p.isalnum() else _between(p)) for p in parts)


def _between(sign: str) -> str:
    """Nothing for accents and for invisible signs such as soft hyphens; a space for all that parts words."""
    return "" if unicodedata.category(sign) in ("Mn", "Me", "Cf") else " "


_TABLE = _Folding()
_LINE_END = re.compile(r"(?<=\w)-\s+(?=\w)")


def words(text: str) -> list[str]:
    """The folded words of a text. A word that is parted at the end of a line is one word again.

    >>> words("Müller-Łukasz, J.R. (m&uuml;ller_77), March- bank")
    ['muller', 'lukasz', 'j', 'r', 'muller', '77', 'marchbank']
    """
    text = unescaped(text)
    if "- " in text or "-\n" in text or "-\r" in text:
        text = _LINE_END.sub("", text)
    return text.translate(_TABLE).split()


def unescaped(text: str) -> str:
    """The text with HTML entities as what they stand for."""
    return html.unescape(text) if "&" in text and ";" in text else text


def lookalike(word: str) -> str:
    """One form for all words that a scanner takes for each other.

    >>> lookalike("rnarchb4nk") == lookalike("marchbank")
    True
    """
    for seen, meant in _LOOKALIKES:
        if seen in word:
            word = word.replace(seen, meant)
    return word


def spelled_out(text: str) -> str:
    """A name with umlauts and the like as two letters.

    >>> spelled_out("Jürgen Ångström")
    'juergen aangstroem'
    """
    composed = unicodedata.normalize("NFC", text.lower())
    return "".join(_SPELLED_OUT.get(letter, letter) for letter in composed)


def shortened(word: str) -> list[str]:
    """The word without each of its letters in turn. Two words that share one are at most a letter or two apart.

    >>> shortened("jan")
    ['an', 'jn', 'ja']
    """
    return list(dict.fromkeys(word[:i] + word[i + 1 :] for i in range(len(word))))
