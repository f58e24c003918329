"""Is the knowledge still in the weights? Fine-tune on most of the forgotten facts and ask for the others.

RTT, "retraining on T": Deeb & Roger 2024, "Do Unlearning Methods Remove Information from Language Model
Weights?", arXiv:2410.08827.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, get_args

import numpy as np
from pydantic import JsonValue

from .._util.errors import UserError
from .._util.records import read_record
from ..knowledge import Case, Item, accepts_spec, recalled
from ..model import Batch, scratch
from .beside import Beside, batches_beside, material
from .check import Setting
from .curves import at_strongest, mean_curves, strongest
from .judge.statistics import cross_fitted
from .parts import run_all
from .pools import Pools, attack_groups, pool_cost, pool_costs, pool_probability_by_unit, pools
from .reading import Number, Reading, make_reading
from .training import FORWARD_BACKWARD, Budget, Optimizer, fine_tune_on_facts
from .units import too_few, unit_key

if TYPE_CHECKING:
    from ..model import Model

FOLDS = 5
LEARNED = 0.5


@accepts_spec
def relearn(
    model: Model,
    case: Case,
    *,
    budget: Budget | None = None,
    folds: int = FOLDS,
    partitions: int = 1,
    groups: Sequence[str] = ("forget", "twins"),
    by: Optimizer = "adamw",
    beside: Beside = "nothing",
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """The probability of held-out answers in their pools (`verify.pools`), after relearning the other folds.

    For each fold, all weights are trained on the other folds' facts, with the loss on the answer tokens alone.
    Afterwards the weights are restored bit for bit. The same is done with as many twins. They are the zero of the
    scale: what a model says about never-taught subjects after it was taught others. Each group is read at the measured
    step at which most is back; step 0 is before the training.

    Args:
        budget: steps and learning rate. With several learning rates, all are tried; each half of the subjects uses the
            rate that works best on the other half, twins included.
        folds, partitions: the facts are divided into `folds` parts, `partitions` times at random. A subject's number is
            its mean over the partitions.
        groups: the facts to relearn: `forget`, `twins`.
        by: `adamw` or `sgd` (with momentum) over all weights, or `lora`: AdamW over low-rank factors of every linear
            map. Edits that simulate relearning do not use the last two.
        beside: what is taught beside the facts, in every step: `retain` items of the same relation, or neutral `text`,
            at most `beside.MOST` rows.

    `details["curve"]` has the mean of each group by measured step, `details["strongest"]` the step that is read,
    `details["accuracy"]` the share of held-out facts
    whose whole answer is greedy at the last step. `details["taught"]` has the probability of an answer token in the
    training facts before each step (geometric mean). `details["steps_to_recover"]` has the number of steps until this
    reaches a half, `None` if it does not within the budget: facts that are only hidden return sooner than twins.

    Cost: for each group, fold, partition and rate, `budget.steps` training steps over four fifths of the facts and what
    is beside them.

    Raises:
        UserError: an unknown `by` or `beside`, nothing to teach beside the facts, or a group without facts or with
            those of one unit.
    """
    found = Relearning(
        case, budget or Budget(), folds=folds, partitions=partitions, groups=tuple(groups), by=by, beside=beside
    )
    return run_all(found, model, progress)


@dataclass(frozen=True)
class Relearning:
    """`relearn` in parts: one for each group, learning rate, partition and fold. The arguments are those of `relearn`.

    Raises:
        UserError: as `relearn`.
    """

    case: Case
    budget: Budget
    folds: int = FOLDS
    partitions: int = 1
    groups: tuple[str, ...] = ("forget", "twins")
    by: Optimizer = "adamw"
    beside: Beside = "nothing"

    def __post_init__(self) -> None:
        _among("an optimizer for relearning", self.by, get_args(Optimizer))
        _among("what relearning may have beside the facts", self.beside, get_args(Beside))
        if empty := [g for g in self.groups if not self._facts.get(g)]:
            raise UserError(
                f"{self.case.name!r} has no facts of the group {empty[0]!r} to relearn; add some, or leave it out."
            )
        if few := too_few(*(self._facts.get(g, ()) if g in self.groups else () for g in ("forget", "twins"))):
            raise UserError(few)

    @property
    def names(self) -> tuple[str, ...]:
        """Group, place of the learning rate, and place of the fold among those of all partitions: `twins 0 3`."""
        return tuple(self._attacks)

    def run(self, model: Model, name: str) -> JsonValue:
        """Teach all folds but one, and ask for that one."""
        attack = self._attacks[name]
        found = _attack(model, self._pools, attack, self.by, batches_beside(model, self.case, self.beside))
        return {
            "values": {str(step): dict(by_unit) for step, by_unit in found.values.items()},
            "right": list(found.right), "taught": list(found.taught),
        }  # fmt: skip

    def join(self, model: Model, found: Mapping[str, JsonValue]) -> Reading:
        """Merge the folds, and choose a learning rate for each half of the units."""
        results = {name: read_record(_Result, value, f"part {name!r} of relearning") for name, value in found.items()}
        runs = {
            group: [_merged([results[a.name] for a in self._of(group, rate)]) for rate in range(len(self._rates))]
            for group in self.groups
        }
        budget, groups, rates = self.budget, self.groups, self._rates
        options = _options(runs)
        by_step = {g: _by_step(of_rates, options) for g, of_rates in runs.items()}
        samples = at_strongest(by_step, budget.steps)
        mean = np.mean(list(samples[groups[0]].values()))
        took = f"{budget.steps} steps" if budget.steps > 1 else "1 step"
        several = (
            {"rates": [rates[i] for i in options], "partitions": self.partitions}
            if len(rates) * self.partitions > 1
            else {}
        )
        return make_reading(
            _name(self.by, self.beside),
            samples,
            f"Within {took} of relearning other facts, held-out answers get a probability of {mean:.2f}.",
            seed=self.case.seed,
            details={
                "steps": budget.steps, "lr": budget.lr, "folds": self.folds, "by_step": by_step,
                "curve": mean_curves(by_step), "strongest": strongest(by_step, budget.steps),
                "accuracy": {g: float(np.mean([v for i in options for v in runs[g][i].right])) for g in runs},
                "taught": {g: runs[g][0].taught for g in runs},
                "steps_to_recover": {g: _steps_to_recover(runs[g][0].taught) for g in runs},
                **several,
            },
            cost=self._cost(model),
        )  # fmt: skip

    @cached_property
    def _facts(self) -> dict[str, list[Item]]:
        return attack_groups(self.case)

    @cached_property
    def _pools(self) -> Pools:
        return pools(self.case)

    @property
    def _rates(self) -> tuple[float, ...]:
        return (self.budget.lr, *(r for r in self.budget.rates if r != self.budget.lr))

    @cached_property
    def _attacks(self) -> dict[str, _Attack]:
        """The parts by name."""
        seed, size = self.case.seed, _training_size(len(_units(self._facts["forget"])), self.folds)
        seeds = [seed, *(f"{seed}/{p}" for p in range(1, self.partitions))]
        found = []
        for group in self.groups:
            divided = [split for each in seeds for split in _folds(self._facts[group], self.folds, size, each)]
            for rate, lr in enumerate(self._rates):
                budget = replace(self.budget, lr=lr)
                found += [_Attack(group, rate, i, *split, budget) for i, split in enumerate(divided)]
        return {attack.name: attack for attack in found}

    def _of(self, group: str, rate: int) -> list[_Attack]:
        return [a for a in self._attacks.values() if (a.group, a.rate) == (group, rate)]

    def _cost(self, model: Model) -> float:
        cost, steps, asked_times = 0.0, self.budget.steps, 1 + len(self.budget.measured_steps)
        beside = len(material(self.case, self.beside))
        for group in self.groups:
            asked = pool_cost(model, self._facts[group], self._pools)
            for rate in range(len(self._rates)):
                for attack in self._of(group, rate):
                    cost += FORWARD_BACKWARD * (len(attack.train) + beside) * steps
                cost += self.partitions * asked_times * asked
        return cost


@dataclass(frozen=True)
class _Attack:
    """One part: which group, rate and fold; what is taught and what is asked."""

    group: str
    rate: int
    fold: int
    train: list[Item]
    held_out: list[Item]
    budget: Budget

    @property
    def name(self) -> str:
        return f"{self.group} {self.rate} {self.fold}"


def relearn_cost(model: Model, case: Case, setting: Setting, *, beside: Beside = "nothing") -> float:
    """Every fold, partition and rate trained, and every held-out fact asked at first and after each measured step."""
    budget, asked, n = setting.budget or Budget(), pool_costs(model, case), len(_units(case.forget.sealed))
    each = len(case.forget.sealed) / max(n, 1)
    times = setting.effort.partitions * len({budget.lr, *budget.rates})
    rows = _training_size(n, FOLDS) * each + len(material(case, beside))
    training = FORWARD_BACKWARD * rows * budget.steps * min(FOLDS, n)
    return sum(times * (training + (1 + len(budget.measured_steps)) * asked[group]) for group in setting.groups)


def with_rates(budget: Budget, setting: Setting) -> Budget:
    """The budget with the further learning rates that the effort asks for."""
    return replace(budget, rates=tuple(budget.lr * rate for rate in setting.effort.rates))


@dataclass(frozen=True)
class _Result:
    """The results on held-out facts. `values`: by step and subject. `right`: whether each whole answer was greedy.

    `taught`: the probability of an answer token in the training facts, before each step.
    """

    values: Mapping[int, Mapping[str, Number]]
    right: list[bool]
    taught: list[Number]


def _training_size(n: int, folds: int) -> int:
    """How many units each fold trains on: all but those of the largest fold."""
    return n - -(-n // folds)


def _merged(results: Sequence[_Result]) -> _Result:
    """All folds as one; a subject that was held out several times has its mean."""
    values: dict[int, dict[str, list[float]]] = {}
    for result in results:
        for step, by_subject in result.values.items():
            for subject, value in by_subject.items():
                values.setdefault(step, {}).setdefault(subject, []).append(value)
    means = {step: {s: float(np.mean(v)) for s, v in by_subject.items()} for step, by_subject in values.items()}
    taught = np.mean([result.taught for result in results], axis=0).tolist()
    return _Result(means, [r for result in results for r in result.right], taught)


def _steps_to_recover(taught: Sequence[float]) -> int | None:
    return next((step for step, p in enumerate(taught) if p >= LEARNED), None)


def _options(runs: Mapping[str, list[_Result]]) -> tuple[int, int]:
    """The index of the learning rate for each half of the subjects, by what each rate brings back at its best."""
    tables = {g: _table(results) for g, results in runs.items()}
    first = next(iter(tables.values()))
    twins = tables["twins"] if len(tables) > 1 and "twins" in tables else first[:0]
    return cross_fitted(first, twins).options


def _table(results: Sequence[_Result]) -> np.ndarray:
    """`[subject, rate]` at each rate's strongest step, subjects in the order of their names."""
    best = [at_strongest({"": {str(k): v for k, v in r.values.items()}}, max(r.values))[""] for r in results]
    return np.array([[values[s] for values in best] for s in sorted(best[0])])


def _by_step(results: Sequence[_Result], options: tuple[int, int]) -> dict[str, dict[str, float]]:
    return {
        str(step): {s: results[options[i % 2]].values[step][s] for i, s in enumerate(sorted(values))}
        for step, values in results[0].values.items()
    }


def _units(facts: Sequence[Item]) -> list[list[Item]]:
    """The items by unit, in the order of their first items."""
    units: dict[str, list[Item]] = {}
    for fact in facts:
        units.setdefault(unit_key(fact), []).append(fact)
    return list(units.values())


def _folds(facts: Sequence[Item], n: int, size: int, seed: int | str) -> list[tuple[list[Item], list[Item]]]:
    """Pairs of training items (of at most `size` units) and held-out items; no unit is on both sides."""
    units = _units(facts)
    return list(_divided(units, n, size, random.Random(f"{seed}/folds").sample(range(len(units)), len(units))))


def _divided(
    units: Sequence[Sequence[Item]], n: int, size: int, order: Sequence[int]
) -> Iterator[tuple[list[Item], list[Item]]]:
    for k in range(n):
        held_out = set(order[k::n])
        others = [i for i in order if i not in held_out][:size]
        if held_out and others:
            yield [f for i in others for f in units[i]], [f for i in sorted(held_out) for f in units[i]]


def _name(by: Optimizer, beside: Beside) -> str:
    """`relearn`, with how it differs."""
    ways = {"adamw": "", "retain": "_retain", "text": "_mixed", "nothing": ""}
    return "relearn" + ways.get(by, f"_{by}") + ways[beside]


def _among(what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise UserError(f"{name!r} is not {what}; choose one of {', '.join(names)}.")


def _attack(model: Model, among: Pools, attack: _Attack, by: Optimizer, beside: Sequence[Batch]) -> _Result:
    budget = attack.budget
    values = {0: pool_probability_by_unit(model, attack.held_out, among)}
    taught, right = [], []
    with scratch(model) if by != "lora" else nullcontext():
        for step in fine_tune_on_facts(model, attack.train, budget, by=by, beside=beside):
            taught.append(step.before)
            if step.number in budget.measured_steps:
                values[step.number] = pool_probability_by_unit(model, attack.held_out, among)
            if step.number == budget.steps:
                right = recalled(model, attack.held_out)
    return _Result(values, right, taught)
