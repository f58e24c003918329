"""SISA: the shards of an ensemble that learned a person's records are trained again without these."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from .._util.errors import UserError
from .._util.files import atomic, check_writable, digest, read_json
from .._util.records import read_record
from ..ablate import Sisa, Training
from ..audit.auditor import Progress
from ..model import Model, export, load
from .earlier import Earlier
from .job import Job, own_case
from .material import Material
from .outcome import Execution, announce, ready
from .register import Register
from .retraining import FOLDER, TrainingData, begin, chosen_method, training_data
from .shown import shown_by

METHODS = ("sisa",)
ENSEMBLE, BEFORE, LIST = "sisa", "before", "sisa.json"
SETTINGS = ("base", "shards", "slices", "training", "texts")  # what is the same before and after a deletion


@dataclass(frozen=True)
class Member:
    """The model of one shard, before and after.

    Attributes:
        shard: its number.
        model, result: SHA-256 of the model before and after.
        made: what the training did; `None` for a model that knew none of the person's records.
    """

    shard: int
    model: str
    result: str
    made: Execution | None


@dataclass(frozen=True)
class Sharded:
    """The shards that were trained again, and how many texts they had learned of those that are left out now."""

    members: tuple[Member, ...]
    deleted: int

    @property
    def broken(self) -> tuple[str, ...]:
        """The safeguards that a shard broke, in words."""
        return tuple(f"shard {m.shard}: {words}" for m in self.members if m.made for words in m.made.broken)


def retrain_shards(
    register: Register,
    id: str,
    base: Model,
    folder: Path,
    material: Material,
    out: Path,
    *,
    progress: Progress | None = None,
) -> Sharded:
    """Train the shards again that learned a person's records, after an entry that says so.

    The ensemble in `folder` stays as it is: a copy in `out/sisa` takes its place. The model of each shard is written to
    `out/shard-N/before` and, after its training, to `out/shard-N/model`, so that `verify` can audit the pair. If one
    shard breaks a safeguard, copy and models are deleted. A killed command goes on where it ended.

    Args:
        base: the model from before all data.
        folder: that of `loka.ablate.Sisa`, made of the texts of the training data in their order.

    Cost: the training of the slices from the records on. Memory: all texts, and three copies of the weights.

    Raises:
        UserError: a request for which this method was not chosen, an ensemble of other data or another base, one that
            never learned the records, or one that lacks an earlier deletion; and as `Job.of`.
    """
    chosen_method(register, id, METHODS)
    check_writable(out)
    data = training_data(register, id, Earlier((), {}, ()), material)
    old = _open(base, data, folder)
    _check_latest(register, folder)
    gone = sorted(data.without & set(old.items))
    if not gone:
        raise UserError(f"the ensemble in {str(folder)!r} never learned a record of {id}, so nothing is to be done.")
    shards = sorted({old.place[n][0] for n in gone})
    plan: dict[str, JsonValue] = {
        "method": "sisa", "ensemble": _settings(folder), "from": digest(folder / LIST), "deleted": len(gone),
        "shards": list(shards), "left_out": asdict(data.left_out),
    }  # fmt: skip
    begin(out, plan)
    announce(register, (id,), plan)
    _export(old, shards, out, BEFORE)
    _delete(base, data, folder, out, gone, progress)
    _export(_open(base, data, out / ENSEMBLE), shards, out, FOLDER)
    made = Sharded(tuple(_judged(register, id, base, material, out, shard) for shard in shards), len(gone))
    _finish(register, id, made, plan, out)
    return made


def _open(base: Model, data: TrainingData, folder: Path) -> Sisa:
    """The ensemble in a folder, by the settings that it was made with."""
    stored = read_json(folder / LIST, "name the folder of a SISA ensemble")
    if not isinstance(stored, dict) or not {*SETTINGS, "items"} <= set(stored):
        raise UserError(f"{str(folder)!r} holds no SISA ensemble; name the folder that `loka.ablate.Sisa` made.")
    training = read_record(Training, stored["training"], f"the training of {str(folder)!r}")
    return Sisa(base, data.texts, folder, shards=stored["shards"], slices=stored["slices"], training=training)


def _settings(folder: Path) -> dict[str, JsonValue]:
    stored = read_json(folder / LIST, "name the folder of a SISA ensemble")
    return {name: stored[name] for name in SETTINGS}


def _check_latest(register: Register, folder: Path) -> None:
    """Refuse an ensemble from before an earlier deletion: its shards know those records still."""
    same = [p for p in register.payloads(kind="executed") if p.get("ensemble") == _settings(folder)]
    if same and digest(folder / LIST) != same[-1]["to"]:
        raise UserError(
            f"{str(folder)!r} lacks an earlier deletion (SHA-256 of {LIST}: {digest(folder / LIST)[:12]}, not "
            f"{str(same[-1]['to'])[:12]}); give the folder {ENSEMBLE!r} that the last execution wrote."
        )


def _delete(
    base: Model, data: TrainingData, folder: Path, out: Path, gone: Sequence[int], progress: Progress | None
) -> None:
    """Delete the texts in a copy of the ensemble, or go on with that."""
    if not (out / ENSEMBLE).exists():
        with atomic(out / ENSEMBLE) as temporary:
            shutil.copytree(folder, temporary)
    copy = _open(base, data, out / ENSEMBLE)
    step = (lambda done, total: progress("training", done, total)) if progress else None
    if left := [n for n in gone if n in copy.items]:
        copy.delete(left, progress=step)
    else:
        copy.train(progress=step)


def _export(ensemble: Sisa, shards: Sequence[int], out: Path, name: str) -> None:
    """Write the models of shards, those that are not there yet."""
    for shard in shards:
        if not (place := out / f"shard-{shard}" / name).exists():
            with ensemble.member(shard) as model:
                export(model, place)


def _judged(register: Register, id: str, base: Model, material: Material, out: Path, shard: int) -> Member:
    """What the training did to one shard's model; nothing is measured where it knew none of the records."""
    before, after = (
        load(str(out / f"shard-{shard}" / name), dtype=base.dtype, device=str(base.device)) for name in (BEFORE, FOLDER)
    )
    known = shown_by(before, own_case(register, (id,), id, material, Earlier((), {}, ()))).known
    made = Execution.of(register, Job.of(register, (id,), before, material), after) if known else None
    return Member(shard, before.digest(), after.digest(), made)


def _finish(register: Register, id: str, made: Sharded, plan: Mapping[str, JsonValue], out: Path) -> None:
    """Log what became of each shard; or delete the new ones, and log that."""
    members: list[JsonValue] = [
        {"shard": m.shard, "model": m.model, "result": m.result, **(m.made.to_json(id) if m.made else {})}
        for m in made.members
    ]
    said = {**plan, "members": members, "broken": list(made.broken), "to": digest(out / ENSEMBLE / LIST)}
    with register.change() as change:
        request = ready(register.request(id), METHODS)
        if made.broken:
            change.log("rolled back", said, id)
        else:
            change.save(replace(request, status="executed"), "executed", said)
    for place in [out / ENSEMBLE, *(out / f"shard-{m.shard}" / FOLDER for m in made.members)] if made.broken else ():
        shutil.rmtree(place)
