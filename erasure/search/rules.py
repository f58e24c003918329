"""The rules by which a record is taken for a person's, with a confidence each. Rows are read by name."""

from __future__ import annotations

from dataclasses import dataclass

LIKELY = 0.6
CERTAIN = 0.9


@dataclass(frozen=True)
class Rule:
    """One reason to take a record for a person's.

    Attributes:
        confidence: 0 to 1, by judgement: from 0.9 on nearly certain, from 0.6 on likely, below it a person must look.
        reason: what was found, in words for the person who confirms.
    """

    name: str
    confidence: float
    reason: str


RULES = {
    rule.name: rule
    for rule in (
        Rule("record", 1.0, "a record that was confirmed before"),
        Rule("email", 1.0, "the e-mail address"),
        Rule("number", 1.0, "a customer number or the like"),
        Rule("phone", 0.95, "the last nine digits of the phone number"),
        Rule("name", 0.95, "the given and the family name, one after the other"),
        Rule("reversed", 0.95, "the family name before the given name"),
        Rule("joined", 0.9, "the given and the family name written as one word"),
        Rule("middle", 0.85, "the given and the family name with one or two words between"),
        Rule("fields", 0.85, "the given and the family name in fields of their own"),
        Rule("scanned", 0.8, "the name with signs that a scanner confuses, or parted within a word"),
        Rule("misspelt", 0.7, "the name with one letter wrong in one part"),
        Rule("initial", 0.65, "the family name with the initial of the given name"),
        Rule("partial", 0.6, "two parts of a longer name"),
        Rule("single", 0.6, "a name of one word"),
        Rule("twice misspelt", 0.5, "the name with more letters wrong"),
        Rule("short number", 0.5, "a number of three or four signs, which may stand for something else"),
        Rule("titled", 0.5, "the family name after a title, without a given name"),
        Rule("namesake", 0.4, "the name, but beside another number of the form of the person's own"),
        Rule("similar", 0.4, "a similar name that others in the data have, too"),
        Rule("misspelt initial", 0.4, "a family name with wrong letters, and the initial of the given name"),
        Rule("family", 0.3, "the family name alone or with another given name"),
    )
}  # fmt: skip
NAMES = frozenset(
    {"name", "reversed", "joined", "middle", "fields", "scanned", "misspelt", "initial", "partial", "single"}
)
