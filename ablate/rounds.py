"""Removal that survives relearning: reset sites, repair the model, and reset the sites that relearning revives."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from .._util.errors import UserError
from .._util.ledger import finishing
from .._util.records import check_types, read_record
from ..knowledge import Case, accepts_spec
from ..model import Edit, EditRecord, RoundRecord, Site, Slice, capture, scratch, slices
from .common import Progress, edit_record
from .reset import reinitialize_
from .training.config import TrainingConfig
from .training.early_stopping import Diverged, EarlyStopping, warn_if_cut_short
from .training.loop import Callbacks, Task, train_slices
from .training.preconditioner import roots
from .training.recovered_sites import Locator, recovered_sites
from .training.train_edit import prepare_task

if TYPE_CHECKING:
    from ..model import Model

ROUNDS = TrainingConfig(steps=200, lr=2e-3, every=25)
MOST = 100


@dataclass(frozen=True)
class RoundPlan:
    """How many sites each round resets, and how the model relearns before the sites of later rounds are located.

    `counts`: the number of sites per round. By default, three rounds each reset as many sites as were given, or a third
    of these without a locator. `relearning_steps`, `relearning_radius`: the number of relearning steps and the length
    of each, see `recovered_sites`.

    Raises:
        UserError: no counts, more than 100, or a negative number.
    """

    counts: tuple[int, ...] | None = None
    relearning_steps: int = 6
    relearning_radius: float = 0.1

    def __post_init__(self) -> None:
        check_types(self, "a plan of rounds")
        if self.counts is not None and (not self.counts or min(self.counts) < 1):
            raise UserError(f"counts {list(self.counts)} must give every round at least one site.")
        if self.counts is not None and len(self.counts) > MOST:
            raise UserError(f"counts for {len(self.counts):,} rounds are too many; give at most {MOST}.")
        if self.relearning_steps < 0 or not 0 <= self.relearning_radius < math.inf:
            raise UserError(f"{self} cannot relearn; give a number of steps and a radius of 0 or above.")

    def to_json(self) -> dict[str, JsonValue]:
        """All fields, as `from_json` reads them."""
        counts: JsonValue = None if self.counts is None else list(self.counts)
        return {**asdict(self), "counts": counts}

    @classmethod
    def from_json(cls, values: object, default: RoundPlan | None = None) -> RoundPlan:
        """Read what `to_json` gave; a missing field takes its default.

        Raises:
            UserError: an unknown field, or a value of another type.
        """
        return read_record(cls, values, "a plan of rounds")


@accepts_spec
def rounds(
    model: Model,
    case: Case,
    sites: Iterable[Site],
    config: TrainingConfig = ROUNDS,
    *,
    locator: Locator | None = None,
    plan: RoundPlan = RoundPlan(),
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Edit:
    """In each round, re-initialise sites as `reset` does, and repair all sites that were reset so far.

    The repair distils the original on retain facts and neutral text, along with the forget objective. A quarter of both
    is held out. A round ends when the held-out part is within the bounds, or when it is far outside them and does not
    improve; the round keeps the best measured state. A round that still wrecks the model is the last one. The edit is
    then that of the round before; `record.ended` and a warning give the reason.

    The first round resets `sites`. Before each later round, all weights relearn half of the forget facts, and the
    locator finds where the other half came back; then the halves swap. This relearning is normalised gradient descent,
    which no check of `verify` uses.

    Args:
        sites: the sites to reset first. Leave out sites that general text needs (`locate.exclude_general`), here and in
            the locator. Without a locator, the sites are divided among the rounds at random. `rerun_on` makes the
            control in this way, with as many random sites and the same steps.
        config: the repair of one round, see `TrainingConfig`; `steps` is the maximum. Without an objective, the rounds
            only repair. By default 200 steps at a learning rate of 2e-3, measured every 25 steps.
        locator: `(model, case) -> sites`, best first; sites that were reset already are skipped. It gets a model that
            has relearned half of the forget facts, and a case whose forget facts are the other half.
        plan: how many sites each round resets, and the relearning before it.
        folder: stores each finished round. A second call with the same arguments resumes after the last one.
        progress: called with the steps done and their total, over all rounds.

    `record.rounds` gives, for each round, the number of sites it reset, its steps, the state it kept and that state's
    metrics.

    Cost: per round, up to `config.steps` training steps as in `tune`, `steps / every` measurements, twice
    `plan.relearning_steps` full training steps over half of the forget facts, and two calls of the locator.
    Memory: two copies of the weights while locating.

    Raises:
        UserError: no sites, too few sites without a locator, a configuration without measurements, or a folder that
            holds other rounds.
        LokaError: training diverged in the first round before anything good was measured.
    """
    if not config.every:
        raise UserError("rounds keep the best state that was measured; give every=25, or another number of steps.")
    given = sorted(set(sites))
    where = slices(model, given)  # rejects sites of another model
    plan = replace(plan, counts=_share_out(given, plan.counts, locator))
    task = prepare_task(model, case, where, config)
    assert task.stopping is not None
    arguments = {"config": config.to_json(), "plan": plan.to_json()}
    record = replace(edit_record("rounds", model, case, [], arguments), first_sites=tuple(map(str, given)))
    store = _Folder(folder, model.digest(), record)
    return _Rounds(model, task.stopping, task, config, plan, locator, store).run(given, progress)


@dataclass(frozen=True)
class _Rounds:
    """The inputs that all rounds share."""

    model: Model
    stopping: EarlyStopping
    task: Task
    config: TrainingConfig
    plan: RoundPlan
    locator: Locator | None
    store: _Folder

    def run(self, given: list[Site], progress: Progress | None) -> Edit:
        """Run all rounds that the folder lacks."""
        counts, edits = self.plan.counts or (), self.store.read()
        pool = random.Random(f"{self.config.seed}/rounds").sample(given, len(given))
        for i in range(len(edits), len(counts)):
            before = edits[-1] if edits else None
            if _is_wrecked(before):
                break
            new = pool[sum(counts[:i]) : sum(counts[: i + 1])]
            new += self.locate(before, {*pool, *_sites(before)}, counts[i] - len(new), i) if before else []
            if not new:
                break
            try:
                edits.append(self.repair(before, new, i, _step(progress, i, len(counts), self.config.steps)))
            except Diverged as error:
                if not before:
                    raise
                return _cut_short(before, f"round {i + 1} of {len(counts)} is missing: {error}")
            self.store.save(edits)
        return _best(edits, len(counts))

    def repair(self, before: Edit | None, new: list[Site], i: int, step: Progress | None) -> Edit:
        """One round: reset the new sites, and repair all sites that were reset so far."""
        model, every_site = self.model, sorted({*_sites(before), *new})
        where, config = slices(model, every_site), replace(self.config, seed=self.config.seed + i)
        task = self._task(where)
        with scratch(model, where):
            if before:
                before.write_(model)
            reinitialize_(model, slices(model, new), seed=self.config.seed + 1000 * i)
            result = train_slices(model, where, task, config, Callbacks(step))
            warn_if_cut_short(result, name=f"round {i + 1}")
            history = before.record.rounds if before else ()
            last = RoundRecord(**asdict(self.stopping.record(result)), sites=len(new))
            names = tuple(str(s) for s in every_site)
            record = replace(self.store.record, sites=names, rounds=(*history, last))
            edit = capture(model, where, self.store.made_for, record)
        if step:
            step(config.steps, config.steps)
        return edit

    def locate(self, edit: Edit, known: set[Site], n: int, i: int) -> list[Site]:
        """The best `n` new sites of those at which relearning brings facts back."""
        if not self.locator or n <= 0:
            return []
        found = recovered_sites(
            self.model, self.stopping.held_out.case, edit, self.locator, steps=self.plan.relearning_steps,
            radius=self.plan.relearning_radius, seed=f"{self.config.seed}/{i}",
        )  # fmt: skip
        return [s for s in found if s not in known][:n]

    def _task(self, where: list[Slice]) -> Task:
        """The task, with the preconditioner of these slices."""
        if self.config.precondition is None:
            return self.task
        white = roots(self.model, self.stopping.held_out.case, where, self.config.precondition)
        return replace(self.task, roots=white)


@dataclass(frozen=True)
class _Folder:
    """The finished rounds in a folder; they are valid only for the same weights and arguments."""

    folder: str | Path | None
    made_for: str
    record: EditRecord

    def read(self) -> list[Edit]:
        edits: list[Edit] = []
        while self.folder is not None and (path := self._path(len(edits) + 1)).exists():
            edit = Edit.load(path)
            if edit.made_for != self.made_for or _key(edit.record) != _key(self.record):
                raise UserError(f"{str(path)!r} holds a round of another model, case or recipe; name another folder.")
            edits.append(edit)
        return edits

    def save(self, edits: Sequence[Edit]) -> None:
        if self.folder is not None:
            folder, path = Path(self.folder), self._path(len(edits))
            with finishing(folder.parent, f"{folder.name}/{path.name}"):
                edits[-1].save(path)

    def _path(self, number: int) -> Path:
        return Path(self.folder or "") / f"round-{number}.safetensors"


def _key(record: EditRecord) -> tuple[object, ...]:
    return record.method, record.case, record.first_sites, record.arguments


def _share_out(given: list[Site], counts: Sequence[int] | None, locator: Locator | None) -> tuple[int, ...]:
    """How many sites each round takes."""
    if not given:
        raise UserError("there are no sites to reset; take them from a localization's `top`.")
    if counts is None:
        third, more = divmod(len(given), 3)
        counts = [len(given)] * 3 if locator else [n for n in (third + (i < more) for i in range(3)) if n]
    if not locator and sum(counts) > len(given):
        raise UserError(
            f"{sum(counts)} sites are to be reset in {len(counts)} rounds, but {len(given)} were given; "
            "give a locator, more sites, or smaller counts."
        )
    return tuple(counts)


def _is_wrecked(edit: Edit | None) -> bool:
    """Whether the collateral was far outside the bounds when an edit's last round ended."""
    return bool(edit and edit.record.rounds[-1].far)


def _best(edits: list[Edit], n: int) -> Edit:
    """The last round's edit, or that of the round before (if any) if the last one wrecked the model."""
    if not _is_wrecked(edits[-1]):
        return edits[-1]
    end, number = edits[-1].record.rounds[-1], max(1, len(edits) - 1)
    return _cut_short(
        edits[number - 1],
        f"round {len(edits)} of {n} left the collateral far outside the bounds (perplexity {end.perplexity_rise:+.0%}, "
        f"held-out recall {end.retain:.2f} of {end.retain_before:.2f}), so no further round was run; this is the "
        f"edit of round {number}. Reset fewer sites per round, exclude those general text needs, or repair longer.",
    )


def _cut_short(edit: Edit, why: str) -> Edit:
    """The edit, with the reason in its record why it has fewer rounds than requested."""
    warnings.warn(why, stacklevel=5)
    return replace(edit, record=replace(edit.record, ended=why))


def _sites(edit: Edit | None) -> list[Site]:
    """The sites that an edit has reset."""
    return [Site.parse(s) for s in edit.record.sites or ()] if edit else []


def _step(progress: Progress | None, i: int, rounds: int, steps: int) -> Progress | None:
    """Progress over all rounds."""
    return (lambda done, _: progress(i * steps + done, rounds * steps)) if progress else None
