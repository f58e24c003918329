"""Reasons and notes that people write: they must not name the person, because they are kept in clear."""

from __future__ import annotations

import re

from .._util.errors import UserError
from .marks import normal
from .person import Person

NAMES = "it names the person or an identifier, and it is kept in clear; write 'the person' in its place"
SHORTEST = 3  # letters of a part of a name that may not stand in a text


def names_person(text: str, person: Person) -> bool:
    """Whether a text holds the person's name, a variant, an identifier, or a part of the name as it is written.

    >>> erika = Person("Erika Long", identifiers=("C-4711",))
    >>> [names_person(text, erika) for text in ("c-4711 wrote", "Mrs Long wrote", "it takes long")]
    [True, True, False]
    """
    whole = [normal(each) for each in (person.name, *person.variants, *person.identifiers)]
    parts = {part for name in (person.name, *person.variants) for part in re.findall(r"[^\W\d_]+", name)}
    return any(_holds(normal(text), each) for each in whole if each) or any(
        _holds(text, part) for part in parts if len(part) >= SHORTEST
    )


def check_text(text: str, person: Person | None, what: str) -> str:
    """The text without white space around it, if it does not name the person. `None` is nobody that is still known.

    Raises:
        UserError: it is empty or names the person. The error does not repeat it.
    """
    if not text.strip():
        raise UserError(f"{what} is empty; give it in a sentence that does not name the person.")
    if person is not None and names_person(text, person):
        raise UserError(f"{what} cannot be kept: {NAMES}.")
    return text.strip()


def _holds(text: str, part: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None
