"""The record of a check: how it runs, what it costs, what it needs and how the verdict uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from .._util.errors import UserError
from ..knowledge import KINDS, Case, Kind, neutral_sealed
from ..model.train.distill import TeacherOutputs
from .judge.thresholds import DELTA
from .parts import Parts
from .reading import Reading
from .training import Budget
from .units import too_few

if TYPE_CHECKING:
    from ..model import Model

Role = Literal["asks", "attack", "inside", "corroborates"]
Need = Literal[
    "twins", "folds", "pool", "relation", "unrelated", "original", "original_reading", "neutral_outputs", "edited"
]
Profile = Literal["quick", "standard", "full"]


@dataclass(frozen=True)
class Effort:
    """How hard the checks of one profile try.

    `draws`: samples of each prompt (extraction). `layers`: layers to try (direction_ablation). `soft_tokens`: length of
    the soft prompt. `partitions`: random divisions of the facts into folds (relearning). `rates`: further learning
    rates of `relearn`, as multiples of its budget's.
    """

    draws: int = 16
    layers: int = 8
    soft_tokens: int = 4
    partitions: int = 1
    rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class Setting:
    """Everything that a check may use in addition to the model and the case.

    Attributes:
        original: the model before the edit, as a separate object; `None` if the checked model is the original.
        effort: how hard to try.
        original_reading: what the same check read on the original; `None` on the original itself.
        neutral_outputs: the original's outputs on the sealed neutral text, for the edited model's divergence.
        edited: the names of the matrices that differ between the original and the edited model, the same for every
            model of an audit; empty if nobody knows.
        budget: the budget of an attack that trains.
        groups: the facts that such an attack is run on: `forget`, `twins`.
        progress: called with the parts done and their number.
    """

    original: Model | None = None
    effort: Effort = Effort()
    original_reading: Reading | None = None
    neutral_outputs: Sequence[TeacherOutputs] | None = None
    edited: tuple[str, ...] = ()
    budget: Budget | None = None
    groups: tuple[str, ...] = ("forget", "twins")
    progress: Callable[[int, int], None] | None = None


def always(case: Case) -> bool:
    """For a check that applies to every case."""
    return True


@dataclass(frozen=True)
class Check:
    """One row of the table of checks.

    Attributes:
        name: the name of the check and of its readings.
        run: measures a model.
        cost: the forward passes of one row that `run` takes, or an upper bound; known before it starts.
        role: `asks` and `corroborates` inform; `attack` decides between removed and suppressed; `inside` looks into
            the model: it may forbid `removed`, and is never sufficient evidence alone.
        needs: what the check requires. Without `twins`, two units to make `folds` of, a `pool` of two answers, answers
            that are the pool of a `relation`, or `unrelated` facts or text, the check is refused; the other names are
            fields of `Setting` that an audit fills for the checks that need them.
        profile: the smallest one that runs the check.
        cap: for an attack that trains, the most that it may spend; an audit finds its budget within this cap, on the
            shallow sibling.
        required: for an attack, whether nothing is called removed without it.
        contradicts_above: the r that an `inside` check must exceed to forbid `removed`.
        parts: the check's parts, which an audit may run apart; `None` for a check that runs in one piece.
        applies: whether a case has anything to do with the check. If not, an audit leaves the check out without a word;
            one that applies and lacks something is refused, with the reason.
    """

    name: str
    run: Callable[[Model, Case, Setting], Reading] = field(repr=False)
    cost: Callable[[Model, Case, Setting], float] = field(repr=False)
    role: Role
    needs: frozenset[Need] = frozenset()
    profile: Profile = "quick"
    cap: Budget | None = None
    required: bool = False
    contradicts_above: float = DELTA
    parts: Callable[[Case, Setting], Parts] | None = field(default=None, repr=False)
    applies: Callable[[Case], bool] = field(default=always, repr=False)

    def __post_init__(self) -> None:
        _allowed("role", [self.role], Role)
        _allowed("need", sorted(self.needs), Need)
        _allowed("profile", [self.profile], Profile)

    @property
    def trains(self) -> bool:
        """Whether the check trains the model, within a budget that must be found first."""
        return self.cap is not None

    def obstacle(self, case: Case) -> str | None:
        """Why the check cannot be run on a case; `None` if it can."""
        if "twins" in self.needs and not case.twins.sealed:
            return "The case has no twins, so a leak cannot be told from chance."
        if "folds" in self.needs and (few := too_few(case.forget.sealed, case.twins.sealed)):
            return few
        if "unrelated" in self.needs and not (case.retain.working or case.retain.sealed or neutral_sealed(case)):
            return "The case has neither facts to keep nor neutral text to train on."
        kinds: set[Kind] = {i.kind for i in case.forget.sealed}
        if "relation" in self.needs and not any(KINDS[k].shared for k in kinds):
            return f"Answers of the kind {', '.join(sorted(kinds))} do not form the pool of a relation."
        if "pool" not in self.needs:
            return None
        relations = dict.fromkeys(i.relation for i in case.forget.sealed if KINDS[i.kind].shared)
        small = [r for r in relations if len(case.pool(r)) < 2]
        if small:
            return f"The pool of {', '.join(small)} has fewer than two answers, so any answer would be certain."
        return None


def _allowed(what: str, values: Sequence[str], names: Any) -> None:
    if unknown := [v for v in values if v not in get_args(names)]:
        raise UserError(f"{unknown[0]!r} is not a {what} of a check; choose one of {', '.join(get_args(names))}.")
