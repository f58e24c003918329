"""E-mail addresses, customer numbers and phone numbers, in one form each however they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ..._util.errors import UserError
from .folding import unescaped

SHORTEST = 3
SHORT = 5  # below this many signs, a number may well stand for something else
CORE = 9  # a phone number's last digits, which are the same with and without the country's code
LONGEST = 34  # an IBAN
MOST_TOKENS = 10
_AT = r"(?:@|\s?\(at\)\s?|\s?\[at\]\s?|%40)"
_EMAIL = re.compile(rf"(?<![\w.+'-])([\w.+'-]{{1,64}}){_AT}([a-z0-9-]{{1,63}}(?:\.[\w-]{{1,63}}){{1,8}})")
_TOKEN = re.compile(r"[a-z]+|[0-9]+")
_SIGNS = r"[\s\-./()_+#:]"
_JOINING = re.compile(rf"{_SIGNS}{{0,3}}")
# digits and what may belong to them: more digits, letters at once, or short words after a sign
_RUN = re.compile(rf"[0-9](?:[0-9]|[a-z]+|{_SIGNS}{{1,3}}(?:[0-9]|[a-z]{{1,4}}(?![a-z])))*")
_LEAD = re.compile(rf"[a-z]{{1,20}}{_SIGNS}{{0,3}}$")
_NINES = str.maketrans("012345678", "9" * 9)
_BEFORE = 24  # signs before a run in which its letters may stand


class Identifier(NamedTuple):
    """One form of an identifier. Kinds: `email`, `number`, `short number`, `phone`."""

    kind: str
    value: str


def identify(text: str) -> Identifier:
    """What an identifier of a person is, by its look: an `@` makes an address; `+` or `0` begins a phone number.

    >>> identify("C-0001"), identify("+49 170 123 45 67")
    (Identifier(kind='number', value='c0001'), Identifier(kind='phone', value='701234567'))

    Raises:
        UserError: fewer than three letters and digits, or more than 34.
    """
    plain = _plain(text).strip()
    if found := next((i for i in _emails(plain)), None):
        return found
    value = "".join(_TOKEN.findall(plain))
    if not SHORTEST <= len(value) <= LONGEST or not any(c.isdigit() for c in value):
        raise UserError(
            f"the identifier {text!r} cannot be searched for; give an e-mail address, or {SHORTEST} to {LONGEST} "
            "letters and digits with at least one digit."
        )
    if value.isdigit() and plain[0] in "+0" and CORE < len(value) <= 15:
        return Identifier("phone", value[-CORE:])
    return Identifier("short number" if len(value) < SHORT else "number", value)


def candidates(text: str) -> Iterator[Identifier]:
    """All that may be an identifier in a text, in the same forms as `identify` gives.

    An address with a tag (`name+tag@...`) is given with and without it. A number begins and ends where letters change
    to digits or another sign, so that `0001` is not found within `10001`.
    """
    plain = _plain(text)
    if "@" in plain or "(at)" in plain or "[at]" in plain or "%40" in plain:
        yield from _emails(plain)
    for run in _RUN.finditer(plain):
        lead = _LEAD.search(plain, max(0, run.start() - _BEFORE), run.start())
        yield from _numbers(plain[lead.start() if lead else run.start() : run.end()])


@lru_cache(2**14)
def _numbers(text: str) -> tuple[Identifier, ...]:
    """All numbers in a run of digits with what stands around. Dates and the like come again and again."""
    tokens = list(_TOKEN.finditer(text))
    starts = [i for i, t in enumerate(tokens) if t[0].isdigit() or (i + 1 < len(tokens) and tokens[i + 1][0].isdigit())]
    return tuple(dict.fromkeys(found for i in starts for found in _joined(text, tokens[i : i + MOST_TOKENS])))


def shape(value: str) -> str:
    """The letters of a number, and how many digits follow: numbers of one kind look alike.

    >>> shape("c0001") == shape("c8732"), shape("c0001") == shape("k0001")
    (True, False)
    """
    return value.translate(_NINES)


def _joined(plain: str, tokens: list[re.Match[str]]) -> Iterator[Identifier]:
    """Numbers that begin with the first of these tokens: `C`, `-` and `0001` make `c0001`."""
    value, end = "", tokens[0].start()
    if end and plain[end - 1].isalnum() and (plain[end - 1].isdigit() or tokens[0][0][0] > "9"):
        return
    for token in tokens:
        apart = token.start() > end and token[0][0] > "9" and len(token[0]) > 4  # a word, no part of a number
        if apart or not _JOINING.fullmatch(plain, end, token.start()) or len(value) + len(token[0]) > LONGEST:
            return
        value, end = value + token[0], token.end()
        if len(value) < SHORTEST or value.isalpha():
            continue
        if value.isdigit() and CORE <= len(value) <= 15:
            yield Identifier("phone", value[-CORE:])
        yield Identifier("short number" if len(value) < SHORT else "number", value)


def _emails(plain: str) -> Iterator[Identifier]:
    for match in _EMAIL.finditer(plain):
        local, domain = match[1].strip(".'-"), match[2].strip(".-_")
        for name in dict.fromkeys((local, local.split("+")[0])):
            if name:
                yield Identifier("email", f"{name}@{domain}")


def _plain(text: str) -> str:
    """Lower case, one Unicode form, no invisible signs."""
    text = unescaped(text)
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).lower().translate(_VISIBLE)


class _Visible(dict[int, str]):
    """A table for `str.translate` that leaves out invisible signs, filled as signs are met."""

    def __missing__(self, code: int) -> str:
        made = self[code] = "" if unicodedata.category(chr(code)) == "Cf" else chr(code)
        return made


_VISIBLE = _Visible()
