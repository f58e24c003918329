"""Removal that survives relearning: reset, repair, see what relearning brings back, and reset that too."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._util.errors import UserError
from ..knowledge import Case, HeldOut, hold_out
from ..model import Edit, Site, capture, scratch, slices
from .objectives import Objective
from .objectives import objective as named
from .reset import destroy_
from .training.batches import Batches, prepare
from .training.early_stopping import Diverged, EarlyStopping, limited, warn
from .training.loop import Progress, Schedule, descend
from .training.recovered_sites import DRILL, Locator, recovered_sites
from .tune import described

if TYPE_CHECKING:
    from ..model import Model


def rounds(
    model: Model,
    case: Case,
    sites: Iterable[Site],
    *,
    locator: Locator | None = None,
    counts: Sequence[int] | None = None,
    objective: str | None = "undial",
    settings: Mapping[str, Any] | None = None,
    steps: int = 200,
    every: int = 25,
    lr: float = 2e-3,
    alpha: float = 1.0,
    beta: float = 1.0,
    push: float = 0.0,
    retain_rows: int = 12,
    neutral_rows: int = 4,
    relearning: Mapping[str, float] | None = None,
    bounds: Mapping[str, float] | None = None,
    seed: int = 0,
    checkpointing: bool = False,
    bfloat16: bool = False,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Rounds of: take sites, re-initialise them as `reset` does, repair all that were reset so far.

    The repair distils the original on retain facts and neutral text, with the forget objective beside it. A quarter
    of both is held out; a round ends as soon as what is held out is inside the bounds, or is far out of them and gets
    no better, and keeps the best state that was measured. A round that wrecks the model all the same is the last: the
    edit is then that of the round before, `about["ended"]` says why, and a warning too. The first round takes
    `sites`; for each later one all weights relearn half of the forget facts, and the locator says where the other half
    came back, then the other way round. That relearning is normalised gradient descent, which no check of
    `verify` uses.

    Args:
        sites: what is reset first; take out what any text needs (`locate.exclude_general`), here and in the locator.
            With 400 of
            the best zeroed in SmolLM2 the perplexity of prose is 357, with 400 of the others 51.7 (from 51.2).
            Without a locator they are shared out over the rounds at random: that is the
            control, which `rerun_on` makes of any such edit with as many random sites and the same steps.
        locator: `(model, case) -> sites`, the best first; those reset already are passed over. It sees a model that
            has relearned, and a case whose forget facts are the half that it was not taught.
        counts: how many sites each round resets; by default three rounds of as many as were given, or without a
            locator of a third each.
        objective, settings, lr, alpha, beta, push, retain_rows, neutral_rows, checkpointing, bfloat16: as in `reset`;
            no objective repairs alone.
        steps: of repair in a round at most; `every` so many, what is held out is measured.
        relearning: `{"steps": 6, "radius": 0.1}`: steps of relearning before locating, and their length.
        bounds: of `Bounds`: `forget`, `retain_drop`, `perplexity_rise`.
        folder: where each finished round is kept; called again with the same arguments, the next one follows.

    `about["rounds"]` says of each round how many sites it reset, its steps, which state it kept, and how the model
    stood then.

    Cost: a round takes up to `steps` training steps as in `tune`, `steps / every` measurements, and twice
    `relearning["steps"]` full training steps over half the forget facts beside the locator's own cost.
    Memory: two copies of the weights while locating.

    Raises:
        UserError: no sites, more to be reset than there are and no locator, or a folder of other rounds.
        LokaError: training diverged in the first round before anything good was measured.
    """
    given = sorted(set(sites))
    slices(model, given)  # refuses sites of another model
    counts = _shared_out(given, counts, locator)
    limits, drill = limited(bounds), DRILL | dict(relearning or {})
    arguments = {
        "counts": counts, "objective": objective, "steps": steps, "every": every, "lr": lr, "alpha": alpha,
        "beta": beta, "push": push, "retain_rows": retain_rows, "neutral_rows": neutral_rows, "relearning": drill,
        "bounds": asdict(limits), "seed": seed, **({"settings": dict(settings)} if settings else {}),
        **({"checkpointing": True} if checkpointing else {}), **({"bfloat16": True} if bfloat16 else {}),
    }  # fmt: skip
    held = hold_out(model, case)
    goal = None if objective is None else named(objective, settings).on(model, slices(model, given))
    lessons = prepare(
        model, held.case, retain_rows=retain_rows, neutral_rows=neutral_rows, seed=seed,
        instead=goal.alternatives() if goal else (), goal=goal,
    )  # fmt: skip
    schedule = Schedule(steps, lr, alpha, beta, push, checkpointing=checkpointing, bfloat16=bfloat16)
    about = described("rounds", model, case, [], arguments)
    state = _State(model.digest(), about | {"given": [str(s) for s in given]})
    watch = EarlyStopping(model, held, held.measure(model), limits, every)
    work = _Work(model, held, lessons, goal, schedule, watch, locator, drill, seed, state)
    edits, pool = state.read(folder), random.Random(f"{seed}/rounds").sample(given, len(given))
    for i in range(len(edits), len(counts)):
        before = edits[-1] if edits else None
        if _wrecked(before):
            break
        new = pool[sum(counts[:i]) : sum(counts[: i + 1])]
        new += work.new(before, {*pool, *_sites(before)}, counts[i] - len(new), i) if before else []
        if not new:
            break
        try:
            edits.append(work.repaired(before, new, i, _step(progress, i, len(counts), steps)))
        except Diverged as error:
            if not before:
                raise
            return _cut_short(before, f"round {i + 1} of {len(counts)} is missing: {error}")
        state.keep(folder, edits)
    return _best(edits, len(counts))


@dataclass(frozen=True)
class _Work:
    """What every round needs."""

    model: Model
    held: HeldOut
    lessons: Batches
    goal: Objective | None
    schedule: Schedule
    watch: EarlyStopping
    locator: Locator | None
    drill: Mapping[str, float]
    seed: int
    state: _State

    def repaired(self, before: Edit | None, new: list[Site], i: int, step: Progress | None) -> Edit:
        """A round: new sites are reset, and all that were reset so far are trained to be as good as can be."""
        model, every_site = self.model, sorted({*_sites(before), *new})
        where = slices(model, every_site)
        with scratch(model, where):
            if before:
                before.write_(model)
            destroy_(model, slices(model, new), seed=self.seed + 1000 * i)
            course = descend(
                model, where, self.lessons, self.goal, self.schedule, seed=self.seed + i, progress=step,
                watch=self.watch,
            )  # fmt: skip
            warn(course, of=f"round {i + 1}")
            told = {"sites": len(new), **self.watch.told(course)}
            history = [*(before.about["rounds"] if before else []), told]
            about = {**self.state.about, "sites": [str(s) for s in every_site], "rounds": history}
            edit = capture(model, where, self.state.made_for, about)
        if step:
            step(self.schedule.steps, self.schedule.steps)
        return edit

    def new(self, edit: Edit, known: set[Site], n: int, i: int) -> list[Site]:
        """The best `n` sites that are not known yet, of those at which relearning brings facts back."""
        if not self.locator or n <= 0:
            return []
        case, seed = self.held.case, f"{self.seed}/{i}"
        found = recovered_sites(self.model, case, edit, self.locator, relearning=self.drill, seed=seed)
        return [s for s in found if s not in known][:n]


@dataclass(frozen=True)
class _State:
    """The finished rounds of a folder, which count for the same weights and arguments alone."""

    made_for: str
    about: dict[str, Any]

    def read(self, folder: str | Path | None) -> list[Edit]:
        edits: list[Edit] = []
        while folder is not None and (path := Path(folder) / f"round-{len(edits) + 1}.safetensors").exists():
            edit = Edit.load(path)
            if edit.made_for != self.made_for or any(edit.about.get(k) != v for k, v in self._same().items()):
                raise UserError(f"{str(path)!r} is a round of another model, case or recipe; name another folder.")
            edits.append(edit)
        return edits

    def keep(self, folder: str | Path | None, edits: list[Edit]) -> None:
        if folder is not None:
            edits[-1].save(Path(folder) / f"round-{len(edits)}.safetensors")

    def _same(self) -> dict[str, Any]:
        return {k: json.loads(json.dumps(self.about[k])) for k in ("method", "case", "given", "arguments")}


def _shared_out(given: list[Site], counts: Sequence[int] | None, locator: Locator | None) -> list[int]:
    """How many sites each round takes."""
    if not given:
        raise UserError("there are no sites to reset; take them from a localization's `top`.")
    if counts is None:
        third, more = divmod(len(given), 3)
        counts = [len(given)] * 3 if locator else [n for n in (third + (i < more) for i in range(3)) if n]
    if not counts or min(counts) < 1:
        raise UserError(f"counts {list(counts)} must give every round at least one site.")
    if not locator and sum(counts) > len(given):
        raise UserError(
            f"{sum(counts)} sites are to be reset in {len(counts)} rounds, but {len(given)} were given; "
            "give a locator, more sites, or smaller counts."
        )
    return list(counts)


def _wrecked(edit: Edit | None) -> bool:
    """Whether the collateral was far out of bounds when an edit's last round ended."""
    return bool(edit and edit.about["rounds"][-1]["far"])


def _best(edits: list[Edit], n: int) -> Edit:
    """The last round's edit, or the one before where the last one wrecked the model and there is one before."""
    if not _wrecked(edits[-1]):
        return edits[-1]
    end, kept = edits[-1].about["rounds"][-1], max(1, len(edits) - 1)
    return _cut_short(
        edits[kept - 1],
        f"round {len(edits)} of {n} left the collateral far out of bounds (perplexity {end['perplexity_rise']:+.0%}, "
        f"held-out recall {end['retain']:.2f} of {end['retain_before']:.2f}), so no further one was made; this is the "
        f"edit of round {kept}. Reset fewer sites a round, spare those that general text needs, or repair longer.",
    )


def _cut_short(edit: Edit, why: str) -> Edit:
    """An edit of fewer rounds than were asked for, which says so."""
    warnings.warn(why, stacklevel=4)
    return replace(edit, about=edit.about | {"ended": why})


def _sites(edit: Edit | None) -> list[Site]:
    """What an edit has reset."""
    return [Site.parse(s) for s in edit.about["sites"]] if edit else []


def _step(progress: Progress | None, i: int, rounds: int, steps: int) -> Progress | None:
    """Progress over all rounds."""
    return (lambda done, _: progress(i * steps + done, rounds * steps)) if progress else None
