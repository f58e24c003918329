"""The exclusion list: who must stay out of the next training set, by keyed digests alone.

Filtering needs no clear value: it takes the digest of every identifier, word and record that it meets and looks it up.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path

from .._util.errors import UserError
from .._util.files import read_json, write_json
from .._util.records import read_record
from .matching import Matcher
from .person import Person
from .records import Record
from .search.folding import lookalike, shortened, words
from .search.identifiers import Identifier, candidates, identify, shape
from .search.mentions import mentions
from .search.names import Lexicon, Near, Part, Slip, allowed, parse
from .search.rules import LIKELY, RULES, Rule

FORMAT = "loka-exclusion-1"
SHORTEST_KEY = 16
NUMBERS = ("number", "short number")
BYTES = 12  # of a digest: one in 10^20 records is held back by chance
PADDED = 32  # digests of a part come in multiples of this, so that their number does not give a name's length away

Digests = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class NameDigests:
    """One name, by the role of each part (`given`, `family`, ...).

    Attributes:
        same: digests of the part's forms.
        scanned: of these as a scanner may take them.
        shortened: of these, and of each without one letter: two words that share one differ by a letter or so.
    """

    same: Digests
    scanned: Digests
    shortened: Digests


@dataclass(frozen=True)
class ExclusionEntry:
    """One person on the list.

    Attributes:
        pseudonym: how reports name the person, such as the number of the request.
        least: rules of lower confidence hold nothing back.
        identifiers: digests of the person's identifiers.
        shapes: digests of how their numbers look, such as a letter and six digits. Few numbers in a text look so, and
            only these are looked up.
        names: the person's names.
        records: digests of records that were confirmed as the person's.
    """

    pseudonym: str
    least: float
    identifiers: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    names: tuple[NameDigests, ...] = ()
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExclusionList:
    """Entries and the key of their digests. The key is not saved with them.

    The same list under another key is another list: digests cannot be turned back, so they cannot get a new key.

    Raises:
        UserError: a key of fewer than 16 bytes.
    """

    key: bytes = field(repr=False)
    entries: tuple[ExclusionEntry, ...] = ()

    def __post_init__(self) -> None:
        if len(self.key) < SHORTEST_KEY:
            raise UserError(f"a key of {len(self.key)} bytes is too short; give {SHORTEST_KEY} random bytes or more.")

    def add(
        self, person: Person, pseudonym: str, records: Iterable[Record] = (), *, least: float = LIKELY
    ) -> ExclusionList:
        """The list with one more person. An entry of the same pseudonym is replaced.

        Args:
            records: those that were confirmed as the person's.
            least: at 0.6, identifiers and names as written, turned round, misspelt by a letter or with an initial hold
                a record back; at 0.9, names as written and phone numbers; at 1, e-mail addresses, numbers and
                confirmed records only.

        Raises:
            UserError: the pseudonym gives the person away, the person cannot be searched for, or `least` is not above 0
                and at most 1.
        """
        if not 0 < least <= 1:
            raise UserError(f"least cannot be {least}; give a confidence above 0, at most 1.")
        if not pseudonym or Matcher(person).match(Record(Path(), 0, (pseudonym,), (), b"")):
            raise UserError(f"the pseudonym {pseudonym!r} is empty or names the person; give a number of the request.")
        own = [i for i in map(identify, person.identifiers) if RULES[i.kind].confidence >= least]
        entry = ExclusionEntry(
            pseudonym,
            least,
            tuple(sorted({self._digest(i.kind, i.value) for i in own})),
            tuple(sorted({self._digest("shape", shape(i.value)) for i in own if i.kind in NUMBERS})),
            tuple(self._name(n, pseudonym, least) for n in (person.name, *person.variants) if n.strip()),
            tuple(sorted({self._digest("record", _canonical(r)) for r in records})),
        )
        kept = tuple(e for e in self.entries if e.pseudonym != pseudonym)
        return replace(self, entries=(*kept, entry))

    def without(self, pseudonym: str) -> ExclusionList:
        """The list without a person.

        Raises:
            UserError: no entry has this pseudonym.
        """
        kept = tuple(e for e in self.entries if e.pseudonym != pseudonym)
        if len(kept) == len(self.entries):
            known = ", ".join(e.pseudonym for e in self.entries) or "none"
            raise UserError(f"the exclusion list has no {pseudonym!r}; it has {known}.")
        return replace(self, entries=kept)

    def save(self, path: str | Path) -> Path:
        """Write the list without its key, whole or not at all, with a seal that shows whether it was touched."""
        entries = [asdict(entry) for entry in self.entries]
        check = self._digest("list", FORMAT)
        write_json(path, {"format": FORMAT, "key": check, "seal": self._seal(entries), "entries": entries})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, key: bytes, named: str = "the key") -> ExclusionList:
        """Read what `save` wrote.

        Args:
            named: how an error names the key.

        Raises:
            UserError: no such list, one of another version, the wrong key, or a list that was touched.
        """
        data = read_json(path, "name an exclusion list")
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise UserError(f"{str(path)!r} is not an exclusion list of the format {FORMAT}; name another file.")
        empty = cls(key)
        if data.get("key") != empty._digest("list", FORMAT):
            raise UserError(f"{named} is not the one that {str(path)!r} was made with; give that key.")
        if data.get("seal") != empty._seal(data.get("entries")):
            raise UserError(f"{str(path)!r} was changed after it was written; restore it from a backup.")
        return replace(
            empty, entries=tuple(read_record(ExclusionEntry, e, f"an entry of {str(path)!r}") for e in data["entries"])
        )

    def screen(self) -> Screen:
        """What looks records up in this list."""
        return Screen(self)

    def _name(self, text: str, pseudonym: str, least: float) -> NameDigests:
        parts = parse(text).parts
        use = {role: forms for role, forms in parts.items() if any(r.confidence >= least for r in _rules(role))}
        scanned = {
            role: {lookalike(f) for f in forms if len(f) > 2} for role, forms in use.items() if role != "initial"
        }
        near = {role: {s for f in forms if allowed(f) for s in (f, *shortened(f))} for role, forms in use.items()}
        spelled = least <= RULES["misspelt"].confidence
        return NameDigests(
            {role: self._padded("word", forms, f"{pseudonym} {role}") for role, forms in use.items()},
            {role: self._padded("scanned", forms, f"{pseudonym} {role}") for role, forms in scanned.items()},
            {r: self._padded("near", f, f"{pseudonym} {r}") for r, f in near.items() if r != "initial"}
            if spelled
            else {},
        )

    def _padded(self, kind: str, values: Iterable[str], salt: str) -> tuple[str, ...]:
        found = {self._digest(kind, value) for value in values}
        for i in count():
            if found and len(found) % PADDED == 0:
                return tuple(sorted(found))
            found.add(self._digest(f"padding {kind}", f"{salt} {i}"))
        raise AssertionError

    def _seal(self, entries: object) -> str:
        return self._digest("seal", json.dumps(entries, sort_keys=True, ensure_ascii=False))

    def _digest(self, kind: str, value: str) -> str:
        return keyed(self.key, kind, value)


class Screen:
    """Looks records up in an exclusion list. It keeps a bounded set of words that it has seen."""

    def __init__(self, exclusions: ExclusionList) -> None:
        self._key = exclusions.key
        self._entries = exclusions.entries
        self._identifiers = _index((e.identifiers, n) for n, e in enumerate(self._entries))
        self._shapes = {digest for e in self._entries for digest in e.shapes}
        self._looks: dict[str, bool] = {}
        self._records = _index((e.records, n) for n, e in enumerate(self._entries))
        names = [(n, name) for n, e in enumerate(self._entries) for name in e.names]
        self._owner = [n for n, _ in names]
        tables = ("same", "scanned", "shortened")
        self._same, self._scanned, self._near = (
            _index((d, Part(i, role)) for i, (_, name) in enumerate(names) for role, d in getattr(name, table).items())
            for table in tables
        )
        self._lexicon = Lexicon(self._judge)

    def match(self, record: Record) -> dict[str, str]:
        """Whose record this is: the name of the strongest rule by pseudonym. Empty if it may stay."""
        found: dict[int, Rule] = {}
        for n, rule in self._rules(record):
            if rule.confidence >= self._entries[n].least and rule.confidence > getattr(found.get(n), "confidence", 0.0):
                found[n] = rule
        return {self._entries[n].pseudonym: rule.name for n, rule in found.items()}

    def mentions(self, text: str) -> bool:
        """Whether a text such as a path mentions anybody on the list, by any rule, however weak."""
        return any(True for _ in self._rules(Record(Path(), 0, (text,), (), b"")))

    def _rules(self, record: Record) -> Iterator[tuple[int, Rule]]:
        if self._records:
            for n in self._records.get(keyed(self._key, "record", _canonical(record)), ()):
                yield n, RULES["record"]
        if self._identifiers:
            for identifier in filter(self._may_be_listed, set(candidates(record.everything))):
                for n in self._identifiers.get(keyed(self._key, *identifier), ()):
                    yield n, RULES[identifier.kind]
        if self._owner:
            said = words(record.everything)
            if close := self._lexicon.close(said):
                for name, mention in mentions((*record.texts, *record.others), said, close).items():
                    yield self._owner[name], mention.rule

    def _may_be_listed(self, identifier: Identifier) -> bool:
        """Whether a number looks like one on the list. Looks come again and again, unlike numbers."""
        if identifier.kind not in NUMBERS:
            return True
        look = shape(identifier.value)
        if look not in self._looks:
            if len(self._looks) > Lexicon.MOST:
                self._looks.clear()
            self._looks[look] = keyed(self._key, "shape", look) in self._shapes
        return self._looks[look]

    def _judge(self, word: str) -> Near:
        """The parts that a word may stand for. The closest comes last, so that it stays."""
        near: dict[Part, Slip] = {}
        if len(word) > 2:
            for form in (word, *shortened(word)) if self._near else ():
                near.update(dict.fromkeys(self._near.get(keyed(self._key, "near", form), ()), Slip.LETTER))
            seen = self._scanned.get(keyed(self._key, "scanned", lookalike(word)), ())
            near.update(dict.fromkeys(seen, Slip.SCANNED))
        near.update(dict.fromkeys(self._same.get(keyed(self._key, "word", word), ()), Slip.SAME))
        return near


def keyed(key: bytes, kind: str, value: str) -> str:
    """HMAC-SHA256 of a value of a kind, its first 12 bytes in hexadecimal."""
    return hmac.digest(key, f"{kind}\0{value}".encode("utf-8", "surrogatepass"), hashlib.sha256)[:BYTES].hex()


def _rules(role: str) -> Iterator[Rule]:
    """The rules that a part of a name takes part in."""
    of = {
        "initial": ("initial", "misspelt initial"),
        "single": ("single",),
        "whole": ("joined", "scanned"),
        "middle": ("partial",),
    }
    yield from (
        RULES[name] for name in of.get(role, ("name", "fields", "scanned", "misspelt", "initial", "titled", "family"))
    )


def _canonical(record: Record) -> str:
    """A record's values in folded words, in the order of the alphabet: the same whatever the format of its file."""
    return "\n".join(sorted(said for value in record.texts + record.others if (said := " ".join(words(value)))))


def _index(rows: Iterable[tuple[Iterable[str], object]]) -> dict[str, tuple]:
    """What stands for each digest."""
    found: dict[str, tuple] = {}
    for digests, of in rows:
        for digest in digests:
            found[digest] = (*found.get(digest, ()), of)
    return found
