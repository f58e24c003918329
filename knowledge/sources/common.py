"""Helpers that the loaders share: the question's template, and fields that come in several forms."""

from __future__ import annotations

from typing import Any

QUESTION = "Question: {}\nAnswer:"


def texts(value: Any) -> list[str]:
    """The texts of a field that holds none, one or several, as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(v) for v in value]


def aliases(value: object) -> list[str]:
    """The answer and its aliases, from a list or from a text divided by `|`; without repeats."""
    given = [str(v) for v in value] if isinstance(value, list | tuple) else str(value).split("|")
    return list(dict.fromkeys(a.strip() for a in given if a.strip())) or [str(value)]
