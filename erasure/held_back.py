"""The register's own exclusion list: who must stay out of the next training set, by pseudonym."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .._util.errors import UserError
from .._util.files import private_folder
from .assessment import impact_of
from .exclusion import Exclusion, exclude
from .exclusion_list import ExclusionEntry, ExclusionList
from .impact import excerpts
from .keys import exclusion_key
from .records import checksum
from .register import Register

FOLDER = "exclusions"


def exclusions(register: Register) -> ExclusionList:
    """The exclusion list of a register, as the trail records it.

    Raises:
        UserError: nobody is on it yet, its file or its key is missing, or one of them was changed.
    """
    name = _current(register)
    if name is None:
        raise UserError("nobody is on the exclusion list yet; give `loka erase exclude --add ID --data ...` first.")
    return _load(register, name)


def add_to_exclusions(register: Register, id: str, files: Iterable[str | Path]) -> int:
    """Put a request's person and their records on the list; returns how many records.

    Confirmed records count, and likely ones that nobody has confirmed or denied. What an earlier request of the same
    person put on the list stays on it.

    Args:
        files: the training data that were assessed.

    Raises:
        UserError: the request was not assessed, its person was deleted, or the training data changed since.
    """
    person, impact = register.person(id), impact_of(register, id)
    records = [each.record for each in excerpts(impact, files) if each.hit.counts()]
    with register.change() as change:
        request, name = register.request(id), _current(register)
        key = exclusion_key(register.keys_folder, create=name is None)
        known = _load(register, name) if name else ExclusionList(key)
        added = _with_earlier(known.add(person, request.pseudonym, records), known)
        path = _save(register, added)
        change.save(request, "excluded", {"records": len(records)})
        change.log("listed", {"list": path.stem, "people": len(added.entries)})
    for other in path.parent.glob("*.json"):
        if other != path:
            other.unlink(missing_ok=True)
    return len(records)


def hold_back(register: Register, source: Path, target: Path, *, drop_broken: bool = False) -> Exclusion:
    """Copy training data without the records of the people on the list; an entry first says how many and whose.

    A killed copy can be given again: there is no target without an entry.

    Raises:
        UserError: nobody is on the list; and as `exclude`.
        LokaError: a record is left, so nothing was written.
    """

    def note(made: Exclusion) -> None:
        with register.change() as change:
            change.log("held back", {
                "by": {pseudonym: dict(rules) for pseudonym, rules in made.held_back.items()},
                "records": made.records, "held_back": made.excluded, "left": made.left,
                "files": [[file.source_digest, file.target_digest] for file in made.files],
            })  # fmt: skip

    return exclude(exclusions(register), source, target, drop_broken=drop_broken, note=note)


def _current(register: Register) -> str | None:
    """The name of the list's file, which is its digest, so that a killed process leaves the old one or the new one."""
    listed = register.payloads(kind="listed")
    return str(listed[-1]["list"]) if listed else None


def _load(register: Register, name: str) -> ExclusionList:
    path = register.folder / FOLDER / f"{name}.json"
    if not path.exists() or checksum(path) != name:
        raise UserError(
            f"the exclusion list {str(path)!r} is missing or is not as the trail records it; "
            "restore it from a backup of the register."
        )
    key = exclusion_key(register.keys_folder)
    return ExclusionList.load(path, key, f"the key of the exclusion list in {str(register.keys_folder)!r}")


def _save(register: Register, made: ExclusionList) -> Path:
    folder = private_folder(register.folder / FOLDER)
    draft = made.save(folder / "draft.json")
    return draft.replace(folder / f"{checksum(draft)}.json")


def _with_earlier(now: ExclusionList, before: ExclusionList) -> ExclusionList:
    """The list with what earlier entries of the same pseudonym have besides."""
    earlier = {entry.pseudonym: entry for entry in before.entries}
    return replace(now, entries=tuple(_joined(e, earlier.get(e.pseudonym, e)) for e in now.entries))


def _joined(new: ExclusionEntry, old: ExclusionEntry) -> ExclusionEntry:
    return ExclusionEntry(
        new.pseudonym,
        min(new.least, old.least),
        tuple(sorted({*new.identifiers, *old.identifiers})),
        tuple(sorted({*new.shapes, *old.shapes})),
        (*new.names, *(name for name in old.names if name not in new.names)),
        tuple(sorted({*new.records, *old.records})),
    )
