"""Find a person's records: identifiers first, then names as they are written, misspelt, shortened or turned round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from .._util.errors import UserError
from .person import Person
from .records import Record
from .search.folding import words
from .search.identifiers import candidates, identify, shape
from .search.mentions import Mention, mentions
from .search.names import Lexicon, judge_by, parse, unspaced
from .search.rules import CERTAIN, LIKELY, NAMES, RULES, Rule

PARTED = 5  # letters of a part that is looked for with a space within
COMMON = 3  # from here on a similar name that stands with other names, too, is a name of its own


@dataclass(frozen=True)
class Hit:
    """A record that may be a person's. It holds nothing of the text.

    Attributes:
        row: as in `Record`.
        rule: the name of the strongest rule in `RULES`.
        confidence: 0 to 1.
        confirmed: what a person said of it; `None` before.
    """

    file: str
    row: int
    rule: str
    confidence: float
    confirmed: bool | None = None

    def counts(self, least: float = LIKELY) -> bool:
        """Whether the record counts as the person's: as a person said, or else from this confidence on."""
        return self.confidence >= least if self.confirmed is None else self.confirmed

    @property
    def reason(self) -> str:
        """What was found, in words."""
        return RULES[self.rule].reason


class Matcher:
    """Recognises one person's records. The first pass over a record is a few set operations.

    It counts similar names that stand elsewhere, so that `settled` can tell a misspelling from another name.

    Raises:
        UserError: a person without name and identifiers, an identifier that is too short, or rapidfuzz is missing.
    """

    def __init__(self, person: Person) -> None:
        named = [name for name in (person.name, *person.variants) if name.strip()]
        if not named and not person.identifiers:
            raise UserError("a person without a name and without identifiers cannot be searched for; give one of them.")
        self._names = tuple(parse(name) for name in named)
        self._forms = frozenset(form for n in self._names for form in n.given | n.family if len(form) >= PARTED)
        self._unspaced = tuple(found for name in named if (found := unspaced(name)))
        self._identifiers = frozenset(identify(text) for text in person.identifiers)
        self._compact = tuple(tuple("".join(words(p)) for p in i.value.split("@")) for i in self._identifiers)
        self._shapes = frozenset(
            shape(i.value) for i in self._identifiers if i.value[0].isalpha() and "@" not in i.value
        )
        self._lexicon = Lexicon(judge_by(self._names))
        self._elsewhere: Counter[str] = Counter()

    def match(self, record: Record) -> Mention | None:
        """The strongest rule by which a record is the person's; `None` if there is none."""
        text = record.everything
        said = words(text)
        compact = "".join(said)
        rule = self._by_identifier(text, compact)
        if rule and rule.confidence >= CERTAIN:
            return Mention(rule)
        found = [Mention(rule)] if rule else []
        if (name := self._by_name(record, said, compact)) is not None:
            other = not rule and name.rule.name in NAMES and self._has_other_number(text)
            found.append(Mention(RULES["namesake"]) if other else name)
        return max(found, key=lambda m: m.rule.confidence, default=None)

    def settled(self, mention: Mention) -> Mention:
        """The mention as it stands after all records were seen: a misspelling that others have is a similar name."""
        if not any(self._elsewhere[word] >= COMMON for word in mention.misspelt):
            return mention
        rules = (
            min(mention.rule, RULES["similar"], key=_confidence),
            *([mention.otherwise] if mention.otherwise else []),
        )
        return Mention(max(rules, key=_confidence))

    def _by_identifier(self, text: str, compact: str) -> Rule | None:
        # a text that does not hold its letters in a row cannot hold an identifier
        if not any(all(part in compact for part in parts) for parts in self._compact):
            return None
        own = [RULES[i.kind] for i in candidates(text) if i in self._identifiers]
        return max(own, key=lambda rule: rule.confidence, default=None)

    def _by_name(self, record: Record, said: list[str], compact: str) -> Mention | None:
        if any(name in compact for name in self._unspaced):
            return Mention(RULES["name"])
        if any(form in compact for form in self._forms):
            said = self._rejoined(said)
        close = self._lexicon.close(said)
        if not close:
            return None
        found = mentions((*record.texts, *record.others), said, close)
        best = max(found.values(), key=lambda m: m.rule.confidence, default=None)
        if best is None or not best.misspelt:
            self._elsewhere.update(word for word, near in close.items() if any(slip > 1 for slip in near.values()))
        return best

    def _rejoined(self, said: list[str]) -> list[str]:
        """The words, with those joined that a space parts within a name."""
        made: list[str] = []
        rest = iter(pairwise([*said, ""]))
        for word, after in rest:
            parted = word + after in self._forms and word not in self._forms
            made.append(word + after if parted else word)
            if parted:
                next(rest, None)
        return made

    def _has_other_number(self, text: str) -> bool:
        """Whether there is a number of the form of the person's, though not the person's."""
        return bool(self._shapes) and any(shape(i.value) in self._shapes for i in candidates(text))


def _confidence(rule: Rule) -> float:
    return rule.confidence


def find(person: Person, records: Iterable[Record]) -> Iterator[Hit]:
    """A person's records among these, in order. Memory: the hits."""
    matcher = Matcher(person)
    found = [(r.file, r.row, m) for r in records if (m := matcher.match(r))]
    for file, row, mention in found:
        rule = matcher.settled(mention).rule
        yield Hit(str(file), row, rule.name, rule.confidence)
