"""Training again without a person's records: here from the base model, or elsewhere by the team itself."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import JsonValue

from .._util.errors import UserError
from .._util.files import check_writable, private_folder, read_json, write_json
from .._util.records import check_types
from ..ablate import Training
from ..ablate import retrain as train_without
from ..audit.auditor import Progress
from ..model import Model, export, load
from .assessment import impact_of
from .earlier import Earlier
from .held_back import exclusions
from .job import Job
from .lineage import check_known, lineage
from .material import Material, text_of
from .outcome import Execution, announce, finish, ready
from .records import read
from .register import Register

METHODS = ("retrain",)
ELSEWHERE = ("retrain", "sisa")  # the methods whose training may be done elsewhere
FOLDER, NOTE = "model", "training.json"
ADVICE = "overrule it by `loka erase choose --method retrain --reason TEXT` to train again"


@dataclass(frozen=True)
class LeftOut:
    """How many records a training leaves out.

    `person`: the person's. `earlier`: those of earlier erasures. `listed`: what the exclusion list holds back besides.
    `unreadable`: rows without a text, and rows that name no owner.
    """

    person: int = 0
    earlier: int = 0
    listed: int = 0
    unreadable: int = 0


@dataclass(frozen=True)
class Restart:
    """Where and how a training begins again.

    Attributes:
        base: the model from before all of the training data.
        training: as the model in use was trained, so that both can be compared.
    """

    base: Model
    training: Training = field(default_factory=Training)


@dataclass(frozen=True)
class TrainingData:
    """The texts of training files in their order, the numbers of those that are left out, and why."""

    texts: tuple[str, ...]
    without: frozenset[int]
    left_out: LeftOut


def retrain(
    register: Register,
    id: str,
    model: Model,
    start: Restart,
    material: Material,
    out: Path,
    *,
    another: bool = False,
    progress: Progress | None = None,
) -> Execution:
    """Train the base again without the person's records, after an entry that says so, and write the model to `out`.

    Left out are the records of the person, those of earlier erasures, and what the exclusion list holds back. Bit for
    bit, the result is that of a training on data that never had them. It is kept if the rest of the model holds.

    Args:
        model: the model in use, which the new one takes the place of.

    Cost: one training. Memory: all texts, and four copies of the weights.

    Raises:
        UserError: a request for which this method was not chosen, a base of another make, a folder that was begun with
            another training; and as `Job.of`.
        LokaError: the training diverged.
    """
    base, training = start.base, check_training(start.training)
    chosen_method(register, id, METHODS)
    check_writable(out)
    check_known(register, model.name, lineage(register, model.digest()), another=another)
    check_same_make(model, base)
    job = Job.of(register, (id,), model, material)
    data = training_data(register, id, job.earlier, material)
    plan: dict[str, JsonValue] = {
        "method": "retrain", "model": job.model.digest(), "base": base.digest(), "training": asdict(training),
        "texts": len(data.texts) - len(data.without), "left_out": asdict(data.left_out),
    }  # fmt: skip
    begin(out, plan)
    announce(register, job.ids, plan)
    if not (out / FOLDER).exists():
        step = (lambda done, total: progress("training", done, total)) if progress else None
        edit = train_without(base, data.texts, without=data.without, training=training, progress=step)
        export(base, out / FOLDER, edit=edit)
    changed = load(str(out / FOLDER), dtype=base.dtype, device=str(base.device))
    made = Execution.of(register, job, changed)
    if not made.kept:
        shutil.rmtree(out / FOLDER)
    finish(register, made, plan, METHODS, None)
    return made


def accept(
    register: Register, id: str, model: Model, retrained: Model, material: Material, *, another: bool = False
) -> Execution:
    """Log a model that the team trained itself on data without the person's records, if the rest of it holds.

    LOKA did not see that training: `verify` says what the model still shows.

    Args:
        model: the model in use, which the new one takes the place of.

    Raises:
        UserError: a request for which no training was chosen, a model of another make, or the same model; and as
            `Job.of`.
    """
    method = chosen_method(register, id, ELSEWHERE)
    check_known(register, model.name, lineage(register, model.digest()), another=another)
    check_same_make(model, retrained)
    job = Job.of(register, (id,), model, material)
    if retrained.digest() == job.model.digest():
        raise UserError(f"{retrained.name} is the model in use itself; give the one that was trained again.")
    plan: dict[str, JsonValue] = {"method": method, "elsewhere": True, "model": job.model.digest()}
    announce(register, job.ids, {**plan, "retrained": retrained.digest()})
    made = Execution.of(register, job, retrained)
    finish(register, made, plan, ELSEWHERE, None)
    return made


def training_data(register: Register, id: str, earlier: Earlier, material: Material) -> TrainingData:
    """The training data as texts, and which of them are left out.

    Raises:
        UserError: the data changed since they were assessed, or a column is missing.
    """
    impact, texts, why, erased = impact_of(register, id), list[str](), dict[int, str](), earlier.texts
    files = impact.unchanged_files(material.data)
    screen = exclusions(register).screen() if register.payloads(kind="listed") else None
    for one in impact.files:
        own = {hit.row for hit in one.hits if hit.counts()}
        for record in read(files[one.digest]):
            if record.header:
                continue
            text = "" if record.fault else text_of(record, material)
            reasons = {
                "unreadable": not text.strip(), "person": record.row in own, "earlier": text in erased,
                "listed": screen is not None and bool(screen.match(record)),
            }  # fmt: skip
            if reason := next((name for name, holds in reasons.items() if holds), None):
                why[len(texts)] = reason
            texts.append(text)
    counts = {name: list(why.values()).count(name) for name in set(why.values())}
    return TrainingData(tuple(texts), frozenset(why), LeftOut(**counts))


def check_training(training: Training) -> Training:
    """The settings of a training, if one can be made with them.

    Raises:
        UserError: a number of another type, below 1, or a learning rate that is not above 0.
    """
    check_types(training, "--training")
    for name in ("epochs", "rows", "limit"):
        if getattr(training, name) < 1:
            raise UserError(f"--training cannot have {name} = {getattr(training, name)}; give 1 or more.")
    if not 0 < training.lr < math.inf:
        raise UserError(f"--training cannot have lr = {training.lr}; give a number above 0, such as 5e-5.")
    return training


def check_same_make(model: Model, other: Model) -> None:
    """Refuse a model with another tokenizer or of another shape, which cannot be what the model was trained from.

    Raises:
        UserError: such a model.
    """
    shapes = [{name: p.shape for name, p in each.parameters.items()} for each in (model, other)]
    if shapes[0] != shapes[1] or model.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise UserError(
            f"{other.name} and {model.name} differ in shape or tokenizer, so neither was trained from the other's "
            "base; give a model of the same make."
        )


def chosen_method(register: Register, id: str, methods: Sequence[str]) -> str:
    """The method of a request, if it is one of these.

    Raises:
        UserError: none or another was chosen, or it cannot be executed any more.
    """
    request = ready(register.request(id), methods, ADVICE)
    if not request.method:
        raise UserError(f"no method was chosen for {id}; {ADVICE}.")
    return request.method


def begin(out: Path, plan: Mapping[str, JsonValue]) -> None:
    """Note what is trained in a folder, so that a killed training is given again and no other takes its place.

    Raises:
        UserError: another training was begun there.
    """
    note = private_folder(out) / NOTE
    if not note.exists():
        write_json(note, dict(plan), private=True)
    elif read_json(note, "name another --out") != plan:
        raise UserError(f"{str(out)!r} was begun with another training; name another --out.")
