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
from .._util.files import write_atomic
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
        UserError: nothing to forget, or something else than a record.
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
    file = CaseFile.model_validate(
        {"name": name, "purpose": purpose, "sets": sets, **roles, "unit": unit, "seed": seed}
    )
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
    """Write a case into a folder: `case.yaml`, its texts, and its sets as `sets/NAME.jsonl`.

    Args:
        path: the case file; a case without sets is copied word by word.
        texts: the neutral texts that the case names, by name.
    """
    renamed = {name: f"neutral_{i + 1}.txt" for i, name in enumerate(texts)}
    if path is not None and not records:
        write_atomic(folder / "case.yaml", path.read_text(encoding="utf-8"))
        renamed = {name: Path(name).name for name in texts if (path.parent / name).is_file()}
    else:
        for name, items in records.items():
            lines = "".join(json.dumps(_row(item), ensure_ascii=False) + "\n" for item in items)
            (folder / "sets").mkdir(parents=True, exist_ok=True)
            write_atomic(folder / "sets" / f"{_plain(name)}.jsonl", lines)
        text = yaml.safe_dump(_standalone(file, renamed), sort_keys=False, allow_unicode=True, width=120)
        write_atomic(folder / "case.yaml", text)
    for name, own in renamed.items():
        write_atomic(folder / own, texts[name])


def _standalone(file: CaseFile, renamed: Mapping[str, str]) -> dict[str, Any]:
    """The file's content, with sources and texts inside its own folder."""
    data = file.model_dump(mode="json", exclude_defaults=True, by_alias=True, exclude={"sets", "neutral"})
    neutral = file.neutral.model_dump(mode="json")
    data["sets"] = {
        name: {"kind": of.kind, "format": "jsonl", "source": f"sets/{_plain(name)}.jsonl"}
        | ({"frame": of.frame} if of.frame else {})
        | ({"make": of.benchmark} if of.benchmark else {})
        for name, of in file.sets.items()
    }
    return data | {"neutral": {k: renamed.get(v, v) if isinstance(v, str) else v for k, v in neutral.items()}}


def _row(item: Record) -> dict[str, Any]:
    """A record's fields, without the empty ones."""
    data: Any = asdict(item)  # type: ignore[call-overload]
    return {key: value for key, value in data.items() if value not in ("", (), [])}


def _plain(name: str) -> str:
    """A set's name as a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
