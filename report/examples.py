"""Examples as a person would read them: what was asked, the right answer, and what each model says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..knowledge.kinds import SEALED, WORKING
from ..verify import Reading
from ..verify.metrics.words import words
from . import formats

MOST = 160  # characters of a text in the table


class Text(NamedTuple):
    """A text for a cell; `whole` is empty unless it was cut."""

    short: str
    whole: str = ""


@dataclass(frozen=True)
class Example:
    """A row of the table. A redacted one has the item's number, and how much of the answer's words was said."""

    prompt: Text
    answer: Text
    before: Text
    after: Text


def examples(readings: Mapping[str, Mapping[str, Reading]], *, redact: bool = False) -> list[Example]:
    """The examples of `recall` on the original and on the edited model, matched by their prompts.

    Args:
        readings: by model and check; one without examples adds none.
        redact: leave out all texts.
    """
    found = {model: _by_prompt(readings.get(model, {}).get("recall")) for model in ("before", "after")}
    made = _redacted if redact else _shown
    prompts = dict.fromkeys([*found["after"], *found["before"]])
    return [made(i, prompt, *(found[m].get(prompt, {}) for m in found)) for i, prompt in enumerate(prompts, 1)]


def cut(text: str, most: int = MOST) -> Text:
    """A text of at most so many characters, cut after a word.

    >>> cut("Tunis is the capital", 12), cut("Tunis", 12)
    (Text(short='Tunis is…', whole='Tunis is the capital'), Text(short='Tunis', whole=''))
    """
    text = text.strip()
    return Text(text) if len(text) <= most else Text(text[:most].rsplit(None, 1)[0] + "…", text)


def question(prompt: str) -> str:
    r"""A prompt without LOKA's own frame around a question.

    >>> question("Q: Who wrote it?\nA:"), question("The capital of Japan is")
    ('Who wrote it?', 'The capital of Japan is')
    """
    frames = (frame.split("{}") for frame in (WORKING, SEALED))
    inner = (prompt[len(a) : -len(b)] for a, b in frames if prompt.startswith(a) and prompt.endswith(b))
    return next(inner, prompt)


def _by_prompt(reading: Reading | None) -> dict[str, dict[str, str]]:
    listed: Any = reading.details.get("examples") if reading else None
    return {one["prompt"]: one for one in listed or () if "prompt" in one}


def _shown(number: int, prompt: str, before: Mapping[str, str], after: Mapping[str, str]) -> Example:
    answer = after.get("answer") or before.get("answer", "")
    return Example(cut(question(prompt)), cut(answer), *(_said(one) for one in (before, after)))


def _said(one: Mapping[str, str]) -> Text:
    return cut(one["said"]) if "said" in one else Text(formats.MISSING)


def _redacted(number: int, prompt: str, before: Mapping[str, str], after: Mapping[str, str]) -> Example:
    return Example(
        Text(f"item {number}"), Text(""), *(Text(formats.share(_overlap(one), 0)) for one in (before, after))
    )


def _overlap(one: Mapping[str, str]) -> float | None:
    """The share of the right answer's words that the model said; `None` where it was not asked."""
    answer, said = set(words(one.get("answer", ""))), one.get("said")
    return len(answer & set(words(said))) / len(answer) if answer and said is not None else None
