"""A prompt that knows where its subject stands, and how an answer is joined to it."""

from __future__ import annotations

import re
import unicodedata

SLOT = "{}"
OPENING = "([{<«‹“‘„‚「『《〈（［｛"  # noqa: RUF001 these are the characters meant
# Scripts that write words without spaces between them, as the beginnings of Unicode's names.
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
Slot = tuple[int, int]


class Prompt(str):
    """A text, and where its subject stands in it.

    `slots`: the first character of each mention of the subject and the one after its last, in order; none where the
    subject does not stand in the text, or is not known.

    >>> prompt = Prompt.fill("Unlike Nigeria, {} has the capital", "Niger")
    >>> prompt, prompt.slots, prompt.about("Kenya")
    ('Unlike Nigeria, Niger has the capital', ((16, 21),), 'Unlike Nigeria, Kenya has the capital')
    """

    slots: tuple[Slot, ...]

    def __new__(cls, text: str, slots: tuple[Slot, ...] = ()) -> Prompt:
        made = super().__new__(cls, text)
        made.slots = slots
        return made

    def __reduce__(self) -> tuple[type[Prompt], tuple[str, tuple[Slot, ...]]]:
        return Prompt, (str(self), self.slots)

    @classmethod
    def fill(cls, template: str, subject: str) -> Prompt:
        """The template with the subject in its slots `{}`."""
        first, *rest = template.split(SLOT)
        text, slots = first, []
        for part in rest:
            slots.append((len(text), len(text) + len(subject)))
            text += subject + part
        return cls(text, tuple(slots))

    @classmethod
    def spot(cls, text: str, subject: str) -> Prompt:
        """A text in which the subject stands as whole words, wherever it does; for texts without a template.

        >>> Prompt.spot("Niger, not Nigeria", "Niger").slots
        ((0, 5),)
        """
        if isinstance(text, Prompt):
            return text
        if not subject:
            return cls(text)
        before, after = (r"(?<!\w)" if spaced(subject[0]) else ""), (r"(?!\w)" if spaced(subject[-1]) else "")
        return cls(text, tuple(m.span() for m in re.finditer(f"{before}{re.escape(subject)}{after}", text)))

    def about(self, other: str) -> Prompt:
        """The same text with another subject in the slots; the same text where it has no slot."""
        text, slots, end = "", [], 0
        for start, stop in self.slots:
            text += self[end:start]
            slots.append((len(text), len(text) + len(other)))
            text, end = text + other, stop
        return Prompt(text + self[end:], tuple(slots))

    def after(self, text: str) -> Prompt:
        """The same prompt with another text before it."""
        return Prompt(text + self, tuple((a + len(text), b + len(text)) for a, b in self.slots))

    def framed(self, frame: str) -> Prompt:
        """The same prompt in the slot `{}` of another text.

        >>> Prompt.fill("Where is {}?", "Niger").framed("Q: {} A:"), Prompt.fill("{}", "Niger").framed("Q: {}").slots
        ('Q: Where is Niger? A:', ((3, 8),))
        """
        before, _, after = frame.partition(SLOT)
        start = self.after(before)
        return Prompt(start + after, start.slots)


def join(prompt: str, answer: str) -> str:
    """A prompt and its answer, with a space between them where the language puts one.

    There is none after white space, after an open bracket or quote, or after a script without spaces.

    >>> join("The capital of Japan is", "Tokyo"), join("日本の首都は", "東京"), join('He said: "', "Tokyo")
    ('The capital of Japan is Tokyo', '日本の首都は東京', 'He said: "Tokyo')
    """
    return f"{prompt} {answer}" if takes_space(prompt) else f"{prompt}{answer}"


def takes_space(prompt: str) -> bool:
    """Whether an answer follows the prompt after a space."""
    last = prompt[-1:]
    if not last or last.isspace() or last in OPENING:
        return False
    return spaced(last) and not (last == '"' and prompt.count('"') % 2)


def spaced(character: str) -> bool:
    """Whether the character belongs to a script that separates words by spaces."""
    return not unicodedata.name(character, "").startswith(UNSPACED)
