"""Which erasures a model has and which it lacks, by the digests in the trail, so that a later one never undoes any.

1. Each execution leads from one model to another: from the SHA-256 of the first to that of the second.
2. From the model at hand, the way back names the erasures that it has, and the way forward those that it lacks.
3. The edits that it lacks are put in place, on a copy, before anything else is done.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from .._util.errors import UserError
from .._util.files import atomic, digest, private_folder
from ..model import Edit, Model, bare
from ..pipeline.recipe import Recipe
from .register import Register

FOLDER = "edits"
SHOWN = 12  # signs of a digest in a sentence
CHANGES = ("executed", "replayed", "expired")  # the kinds of entries that tell of changed models


@dataclass(frozen=True)
class Erasure:
    """A change of a model for one request, or for several that were executed as one.

    Attributes:
        requests: their ids; none after they were deleted from the register.
        model: SHA-256 of the model that was changed.
        result: SHA-256 of the model after it.
        edit: SHA-256 of the edit's file; empty for a model that was trained again.
        recipe: that of the edit, where the trail still has it.
    """

    requests: tuple[str, ...]
    model: str
    result: str
    edit: str = ""
    recipe: Recipe | None = None

    @property
    def words(self) -> str:
        """Whose erasure it is, for a sentence."""
        return " and ".join(self.requests) or "requests that were deleted from the register"

    def load(self, path: Path) -> Edit:
        """The edit in a file.

        Raises:
            UserError: the file is missing, or is not the edit that was executed.
        """
        if not path.exists() or digest(path) != self.edit:
            raise UserError(
                f"{str(path)!r} is missing or is not the edit that {self.words} was executed with; restore it from a "
                "backup."
            )
        return Edit.load(path)


@dataclass(frozen=True)
class Lineage:
    """The erasures that a model has, and those that it lacks, each in the order in which they were made.

    Attributes:
        model: SHA-256 of the model.
        known: whether an erasure started from this model or led to it.
    """

    model: str
    present: tuple[Erasure, ...]
    missing: tuple[Erasure, ...]
    known: bool

    @property
    def requests(self) -> tuple[str, ...]:
        """The requests whose erasures the model has, or gets before anything else is done."""
        return tuple(dict.fromkeys(id for e in (*self.present, *self.missing) for id in e.requests))


def lineage(register: Register, model: str) -> Lineage:
    """The erasures before and after the model with this SHA-256.

    Raises:
        UserError: two erasures started from one model, and neither has the other.
    """
    every = erasures(register)
    back, at = list[Erasure](), model
    while found := [e for e in every if e.result == at and e not in back]:
        back.append(found[-1])
        at = found[-1].model
    forward, at = list[Erasure](), model
    while found := [e for e in every if e.model == at and e not in (*back, *forward)]:
        if len(found) > 1:
            raise UserError(
                f"{found[0].words} and {found[1].words} were both executed on the model {at[:SHOWN]}, and neither has "
                f"the other; give the model {found[0].result[:SHOWN]} or {found[1].result[:SHOWN]}."
            )
        forward.append(found[0])
        at = found[0].result
    return Lineage(model, tuple(reversed(back)), tuple(forward), any(model in (e.model, e.result) for e in every))


def check_known(register: Register, name: str, line: Lineage, *, another: bool = False) -> None:
    """Refuse a model that lacks the earlier erasures, unless somebody says that it is another model.

    Raises:
        UserError: no erasure is known of the model, though there are some; or `another` for a model that is known.
    """
    every = erasures(register)
    if another and line.known:
        raise UserError(f"{name} has, or needs, the erasures of {', '.join(line.requests)}; leave out --another-model.")
    if line.known or another or not every:
        return
    last = every[-1]
    raise UserError(
        f"{name} (SHA-256 {line.model[:SHOWN]}) lacks earlier erasures, such as that of {last.words}; give the model "
        f"{last.model[:SHOWN]} or {last.result[:SHOWN]}, bring them into this one by `loka erase replay`, or say by "
        "--another-model that it never learned those records."
    )


def with_edits(register: Register, model: Model, erased: Sequence[Erasure]) -> Model:
    """The model with these edits in place, one after another; a copy, if there are any.

    Memory: one more copy of the weights.

    Raises:
        UserError: an edit is missing or was changed, a model was trained again in between, or the edits give other
            weights than when they were made.
    """
    edits = [(each, each.load(edit_path(register, each.edit))) for each in _editable(model, erased)]
    if not edits:
        return model
    copy = bare(model)
    for each, edit in edits:
        edit.apply_(copy)
        if (now := copy.digest()) != each.result:
            raise UserError(
                f"the edit of {each.words} gives the model {now[:SHOWN]} here, not {each.result[:SHOWN]}; use the kind "
                "of device and the dtype that it was executed with."
            )
    return copy


def until(register: Register, model: Model, target: str) -> Model | None:
    """The model with the edits that lead to the model with the SHA-256 `target`; `None` if there is no way to it."""
    line, wanted = lineage(register, model.digest()), list[Erasure]()
    if line.model == target:
        return model
    for each in line.missing:
        wanted.append(each)
        if each.result == target:
            return with_edits(register, model, wanted)
    return None


def erasures(register: Register) -> list[Erasure]:
    """All erasures that the trail tells of, oldest first. Those of one batch are one."""
    found: dict[tuple[str, str], Erasure] = {}
    for entry in register.entries():
        if entry.kind in CHANGES and (said := entry.said):
            for made in _read(said.request, said.payload):
                known = found.get((made.model, made.result))
                both = tuple(dict.fromkeys([*(known.requests if known else ()), *made.requests]))
                found[made.model, made.result] = replace(known or made, requests=both)
    return list(found.values())


def executed(register: Register, id: str) -> Erasure:
    """The erasure that a request was executed with.

    Raises:
        UserError: it was never executed.
    """
    request, payloads = register.request(id), register.payloads(id, kind="executed")
    if not payloads:
        raise UserError(f"{id} is {request.status} and was not executed; give `loka erase execute {id} ...` first.")
    first = _read(id, payloads[-1])[0]
    return next(each for each in erasures(register) if (each.model, each.result) == (first.model, first.result))


def edit_path(register: Register, edit: str) -> Path:
    """Where the register keeps a copy of an edit, by the SHA-256 of its file."""
    return register.folder / FOLDER / f"{edit}.safetensors"


def keep_edit(register: Register, path: Path) -> None:
    """Keep a copy of an edit, so that it can be applied again when the run folder is gone."""
    target = edit_path(register, digest(path))
    private_folder(target.parent)
    with atomic(target) as temporary:
        shutil.copyfile(path, temporary)


def without_requests(register: Register, ids: Iterable[str]) -> list[JsonValue]:
    """The erasures of requests that are about to be deleted, without them: what the models still need to know."""
    gone = set(ids)
    return [
        {"model": e.model, "result": e.result, "edit": e.edit} for e in erasures(register) if gone & set(e.requests)
    ]


def _read(request: str, payload: Mapping[str, Any]) -> list[Erasure]:
    """The erasures that one entry tells of: of its request, of each model of an ensemble, or of deleted requests."""
    rows = payload.get("members", [payload]) if request else payload.get("erasures", [])
    return [
        Erasure(
            (request,) if request else (), row["model"], row["result"], row.get("edit", ""),
            Recipe.from_json(row["recipe"]) if row.get("recipe") else None,
        )
        for row in rows if row.get("result")
    ]  # fmt: skip


def _editable(model: Model, erased: Sequence[Erasure]) -> Sequence[Erasure]:
    """The erasures, if all of them are edits."""
    if trained := [each for each in erased if not each.edit]:
        raise UserError(
            f"{model.name} was trained again for {trained[-1].words}; give the model that came of it (SHA-256 "
            f"{trained[-1].result[:SHOWN]})."
        )
    return erased
