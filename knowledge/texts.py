"""What a name, a subject or an answer may be, and when two of them are the same."""

from __future__ import annotations

import unicodedata

BOM = "\ufeff"
SEPARATORS = "|/"  # between a relation and a subject or a way to ask, in the names of units and forms


def fault_of(text: str, *, name: bool = False) -> str | None:
    """What is wrong with a text, to follow its field; `None` if nothing is.

    Args:
        name: whether it is the name of a relation or a set.

    >>> fault_of("Paris "), fault_of(" "), fault_of("Paris")
    ("'Paris ' has white space around it; remove it", "' ' is blank; give a text", None)
    """
    if not text.strip():
        return f"{text!r} is blank; give a text"
    if text != text.strip():
        return f"{text!r} has white space around it; remove it"
    if BOM in text:
        return f"{text!r} has a byte order mark in it; remove it"
    if name and (found := next((c for c in SEPARATORS if c in text), None)):
        return f"{text!r} has {found!r} in it, which separates names from what follows; rename it"
    return None


def spelled_alike(text: str) -> str:
    """A text that is the same for all spellings that differ in spaces or Unicode form alone."""
    return " ".join(unicodedata.normalize("NFC", text).split())
