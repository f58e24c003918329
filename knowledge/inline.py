"""Cases without files beside them: built from lists in Python, and written as a folder that stands alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from .._util.errors import UserError
from .._util.files import inside, write_atomic
from .kinds import KINDS, Record
from .schema import CaseFile, Purpose, Unit

Records = Mapping[str, tuple[Record, ...]]
HALVES = {"working": 0.5, "sealed": 0.5}
AMOUNTS: dict[str, object] = {"forget": "all", "retain": HALVES, "twins": "all"}


def inline(
    lists: Mapping[str, Sequence[Record]], name: str, purpose: Purpose, unit: Unit | None, seed: int
) -> tuple[CaseFile, Records]:
    """The case file, and the records of its sets, for lists by their role: `forget`, `retain`, `twins`.

    Raises:
        UserError: nothing to forget, something else than a record, or a value that a case file may not have.
    """
    classes = {row.record: kind for kind, row in KINDS.items()}
    names = ", ".join(c.__name__ for c in classes)
    if not lists["forget"]:
        raise UserError(f"there are no items to forget; give at least one {names}.")
    records: dict[str, list[Record]] = {}
    roles: dict[str, dict[str, object]] = {role: {} for role in lists}
    sets: dict[str, dict[str, object]] = {}
    for role, items in lists.items():
        for item in items:
            if type(item) not in classes:
                raise UserError(f"{item!r} is not an item of a case; give one of {names}.")
            kind = classes[type(item)]
            of = f"{role}_{kind}"
            records.setdefault(of, []).append(item)
            sets[of] = {"kind": kind, "source": f"sets/{of}.jsonl"}
            roles[role][of] = AMOUNTS[role]
    file = CaseFile.of({"name": name, "purpose": purpose, "sets": sets, **roles, "unit": unit, "seed": seed})
    return file, {of: tuple(items) for of, items in records.items()}


def content_digest(file: CaseFile, records: Records, texts: Mapping[str, str]) -> str:
    """SHA-256 of what a case with sets says, wherever its files lie and whatever they are called."""
    plain = file.model_dump(mode="json", exclude={"sets", "neutral"})
    sets = {name: (of.kind, of.frame) for name, of in file.sets.items()}
    neutral = [
        texts.get(n, n) if isinstance(n, str) else n.sampled for n in (file.neutral.working, file.neutral.sealed)
    ]
    return hashlib.sha256(repr((plain, sets, dict(records), neutral)).encode()).hexdigest()


def write_case(folder: Path, file: CaseFile, path: Path | None, records: Records, texts: Mapping[str, str]) -> None:
    """Write a case into a folder: `case.yaml`, its texts as `neutral_N.txt`, and its sets as `sets/NAME.jsonl`.

    Args:
        path: the case file; a case that names no files of its own is copied word by word.
        texts: the neutral texts of its own that the case names, by name.

    Raises:
        UserError: the folder holds another file of one of these names.
    """
    sets = _set_files(file)
    renamed = {name: f"neutral_{i + 1}.txt" for i, name in enumerate(texts)}
    contents = {
        sets[name]: "".join(json.dumps(_row(item), ensure_ascii=False) + "\n" for item in items)
        for name, items in records.items()
    }
    contents |= {own: texts[name] for name, own in renamed.items()}
    if path is not None and not contents:
        contents["case.yaml"] = path.read_text(encoding="utf-8")
    else:
        plain = _standalone(file, sets, renamed)
        contents["case.yaml"] = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    for name, text in contents.items():
        path = inside(folder, name)
        if path.is_file() and path.read_bytes() != text.encode():
            raise UserError(f"{str(path)!r} is there already and holds something else; name another --out.")
    for name, text in contents.items():
        write_atomic(folder / name, text)


def _set_files(file: CaseFile) -> dict[str, str]:
    """A file name for each set; two names that differ only in signs or in case get numbers."""
    found: dict[str, str] = {}
    for name in file.sets:
        plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:60]
        taken = [other.casefold() for other in found.values()]
        numbered = (f"sets/{plain}{end}.jsonl" for end in ("", *(f"_{i}" for i in range(2, len(found) + 3))))
        found[name] = next(each for each in numbered if each.casefold() not in taken)
    return found


def _standalone(file: CaseFile, sets: Mapping[str, str], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The file's content, with sources and texts inside its own folder."""
    data = file.model_dump(mode="json", exclude_defaults=True, by_alias=True, exclude={"sets", "neutral"})
    neutral = file.neutral.model_dump(mode="json")
    sources = {
        name: {"kind": of.kind, "format": "jsonl", "source": sets[name]}
        | ({"frame": of.frame} if of.frame else {})
        | ({"make": of.benchmark} if of.benchmark else {})
        for name, of in file.sets.items()
    }
    named = {"sets": sources} if sources else {}
    return data | named | {"neutral": {k: renamed.get(v, v) if isinstance(v, str) else v for k, v in neutral.items()}}


def _row(item: Record) -> dict[str, Any]:
    """A record's fields, without the empty ones."""
    data: Any = asdict(item)  # type: ignore[call-overload]
    return {key: value for key, value in data.items() if value not in ("", (), [])}
