"""Run folders without the items' text: every text is a number or a keyed digest.

Whoever has the case and the key can tell which item a label stands for; nobody else can, and the digest of a guess
cannot be compared without the key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from .._util.errors import UserError
from .._util.files import atomic, private_folder
from .._util.provenance import read_provenance
from ..model import Edit, EditRecord
from .case import Case, CaseSpec
from .item import Item
from .words import words

KEY = "LOKA_REDACTION_KEY"
BYTES = 32
SHOWN = 16  # hexadecimal digits of a digest
LEAST = 4  # letters of a text that is looked for inside other strings


def redaction_key() -> bytes:
    """The key of digests. It lies outside of run folders, readable by its owner alone, and is made at first use.

    The environment's `LOKA_REDACTION_KEY` names its file; by default it is `redaction.key` in the user's configuration.

    Raises:
        UserError: a file that cannot be read or written, or that is too short.
    """
    path = Path(os.environ.get(KEY) or platformdirs.user_config_path("loka") / "redaction.key").expanduser()
    try:
        if not path.exists():
            _make_key(path)
        found = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"the redaction key {str(path)!r} cannot be read ({error.strerror}); name a file by {KEY}."
        ) from error
    if len(found) < BYTES:
        raise UserError(f"the redaction key {str(path)!r} has {len(found)} bytes, not {BYTES}; name another by {KEY}.")
    return found


def _make_key(path: Path) -> None:
    """Write a new key whole, unless another process was first."""
    private_folder(path.parent)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            with atomic(path) as temporary:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(secrets.token_bytes(BYTES))


class Redactor:
    """Labels in the place of a case's texts, and back.

    An item's unit becomes `item 07 [0123456789abcdef]`, any other text `text [...]`. Units are numbered in alphabetical
    order, so that sorting and resampling give the same numbers as without redaction.

    Args:
        case: the case as a model knows it.
        key: the key of the digests, by default `redaction_key()`.
    """

    def __init__(self, case: Case, key: bytes | None = None) -> None:
        self._case, self.key = case, redaction_key() if key is None else key

    @property
    def case(self) -> Case:
        """The case under a name without its items' words, for the records of what is made from it."""
        return replace(self._case, name=self.hide(self._case.name))

    def token(self, text: str) -> str:
        """A text's digest under the key, in hexadecimal."""
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()

    def hide(self, value: Any) -> Any:
        """A JSON value with labels in the place of texts, in its keys and its strings.

        What a model said is free text, so that an example keeps its prompt's label and the overlap of words alone.
        """
        if isinstance(value, Mapping):
            if "said" in value:
                value = {"prompt": value.get("prompt", ""), "overlap": word_overlap(value)}
            return {self._label(k) if isinstance(k, str) else k: self.hide(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(v) for v in value]
        return self._label(value) if isinstance(value, str) else value

    def show(self, value: Any) -> Any:
        """What `hide` took: the same value with the texts that labels stand for."""
        if isinstance(value, Mapping):
            return {self._texts.get(k, k): self.show(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.show(v) for v in value]
        return self._texts.get(value, value) if isinstance(value, str) else value

    def hide_reading(self, reading: Mapping[str, Any]) -> dict[str, Any]:
        """A reading as JSON without texts; the names of its fields and groups stay."""
        samples = {group: self.hide(units) for group, units in reading["samples"].items()}
        rest = {name: self.hide(reading[name]) for name in ("meaning", "details")}
        return {**reading, **rest, "samples": samples}

    def hide_verdict(self, verdict: Mapping[str, Any]) -> dict[str, Any]:
        """A verdict as JSON without texts."""
        readings = {check: self.hide_reading(reading) for check, reading in verdict["readings"].items()}
        rest = {name: self.hide(verdict[name]) for name in ("claim", "reasons", "flags", "gates")}
        return {**verdict, **rest, "readings": readings}

    def hide_edit(self, edit: Edit) -> Edit:
        """An edit whose record has labels in the place of texts."""
        return replace(edit, record=EditRecord.from_json(self.hide(edit.record.to_json())))

    def show_edit(self, edit: Edit) -> Edit:
        """What `hide_edit` took."""
        return replace(edit, record=EditRecord.from_json(self.show(edit.record.to_json())))

    def case_file(self) -> dict[str, Any]:
        """What stands in `case.yaml` in place of the case: its items by label, and what each is for."""
        case, spec = self._case, self._case.spec
        parts = {"forget": case.forget, "retain": case.retain, "twins": case.twins}
        return {
            "redacted": "The case's text is not in this folder. Commands that need it take the case file itself.",
            "name": self.case.name,
            "purpose": spec.purpose,
            "seed": spec.seed,
            "digest": self.token(spec.digest),
            "items": {
                name: sorted({self._label(_key(item)) for item in (*part.working, *part.sealed)})
                for name, part in parts.items()
            },
        }

    def _label(self, text: str) -> str:
        if text in self._labels:
            return self._labels[text]
        return self._inside.sub(lambda found: f"text [{self.token(found[0].casefold())[:SHOWN]}]", text)

    @cached_property
    def _labels(self) -> dict[str, str]:
        items = [*_items(self._case), *_items(self._case.spec.whole())]
        units = sorted({_key(item) for item in items} | {item.unit for item in items})
        width = len(str(len(units)))
        texts = {text for item in items for text in _texts(item)} | set(_templates(self._case.spec))
        labels = {text: f"text [{self.token(text)[:SHOWN]}]" for text in sorted(texts) if text.strip()}
        numbered = {u: f"item {i:0{width}d} [{self.token(u)[:SHOWN]}]" for i, u in enumerate(units, 1)}
        places = {item.unit for item in items if item.unit.isdecimal()} - {item.subject for item in items}
        # the place of an item in its set says nothing, and may be a number that stands elsewhere, such as a step
        return labels | {unit: label for unit, label in numbered.items() if unit not in places}

    @cached_property
    def _texts(self) -> dict[str, str]:
        return {label: text for text, label in self._labels.items()}

    @cached_property
    def _inside(self) -> re.Pattern[str]:
        """The texts that are looked for inside longer strings, such as a command line: whole words, in any case."""
        long = sorted((t for t in self._labels if len(t) >= LEAST), key=len, reverse=True)
        return re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, long)) or '(?!)'})(?![^\W_])", re.IGNORECASE)


def redactor_of(folder: Path, case: Case, redact: bool) -> Redactor | None:
    """The redactor of a folder; `None` where the folder keeps the texts. A redacted folder stays redacted.

    Raises:
        UserError: the folder has files with texts already.
    """
    stored = read_provenance(folder)
    redacted = stored is not None and bool(stored.arguments.get("redacted"))
    if stored is not None and redact and not redacted:
        raise UserError(
            f"{str(folder)!r} was begun without --redact, and its files have the items' texts; name another --out."
        )
    return Redactor(case) if redact or redacted else None


def word_overlap(example: Mapping[str, Any]) -> float | None:
    """The share of the right answer's words that a model said; `None` where it was not asked."""
    if "overlap" in example:
        return example["overlap"]
    answer, said = set(words(example.get("answer", ""))), example.get("said")
    return len(answer & set(words(said))) / len(answer) if answer and said is not None else None


def _items(case: Case) -> Iterator[Item]:
    for part in (case.forget, case.retain, case.twins, case.holdout):
        yield from (*part.working, *part.sealed)
    yield from (*case.unknown, *case.downstream, *case.downstream_twins)


def _key(item: Item) -> str:
    return f"{item.relation}/{item.unit}"


def _texts(item: Item) -> Iterator[str]:
    """Everything that an item says."""
    yield from (item.subject, *item.answers, *item.foils, *item.rivals, *map(str, item.prompts))
    yield from (item.counterfactual, item.rephrased)


def _templates(spec: CaseSpec) -> Iterator[str]:
    """The ways to ask of relations, as they stand in the file and as `verify.paraphrase` names them; new answers."""
    for name, relation in spec.relations.items():
        for template in (*relation.working, *relation.sealed, *relation.paraphrases):
            yield from (template, f"{name}|{template}")
        for code, language in relation.languages.items():
            yield from (text for t in language.templates for text in (t, f"{name}|{code}: {t}"))
            yield from (*language.subjects.values(), *language.answers.values())
    yield from spec.file.forms
    yield from (a for new in spec.file.updates.values() for a in new.values())
