"""Is the knowledge still in the weights? Fine-tune on most of the forgotten facts and ask for the others.

RTT, "retraining on T": Deeb & Roger 2024, "Do Unlearning Methods Remove Information from Language Model
Weights?", arXiv:2410.08827.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec, recalled
from ..model import Batch, scratch
from .beside import Beside, batches_beside, material
from .check import Setting
from .curves import at_strongest, mean_curves, strongest
from .judge.statistics import cross_fitted
from .pools import Pools, attack_groups, pool_cost, pool_costs, pool_probability_by_unit, pools
from .reading import Reading, make_reading
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
    _among("an optimizer for relearning", by, get_args(Optimizer))
    _among("what relearning may have beside the facts", beside, get_args(Beside))
    budget = budget or Budget()
    facts, among = attack_groups(case), pools(case)
    if empty := [g for g in groups if not facts.get(g)]:
        raise UserError(f"{case.name!r} has no facts of the group {empty[0]!r} to relearn; add some, or leave it out.")
    if few := too_few(*(facts.get(g, ()) if g in groups else () for g in ("forget", "twins"))):
        raise UserError(few)
    size = _training_size(len(_units(facts["forget"])), folds)
    rates = (budget.lr, *(r for r in budget.rates if r != budget.lr))
    seeds = [case.seed, *(f"{case.seed}/{p}" for p in range(1, partitions))]
    runs: dict[str, list[_Result]] = {}
    start: dict[str, dict[str, float]] = {}
    others = batches_beside(model, case, beside)
    more = sum(len(batch.ids) for batch in others)
    cost, done = 0.0, 0
    for group in groups:
        divided = [split for seed in seeds for split in _folds(facts[group], folds, size, seed)]
        runs[group] = []
        start[group] = pool_probability_by_unit(model, facts[group], among)
        cost += pool_cost(model, facts[group], among)
        for rate in rates:
            results = []
            for train, held_out in divided:
                results.append(_attack(model, among, train, held_out, replace(budget, lr=rate), by, others))
                cost += FORWARD_BACKWARD * (len(train) + more) * budget.steps
                done += 1
                if progress:
                    progress(done, len(divided) * len(rates) * len(groups))
            runs[group].append(_merged(results))
            cost += partitions * len(budget.measured_steps) * pool_cost(model, facts[group], among)
    options = _options(runs)
    by_step = {g: {"0": start[g], **_by_step(results, options)} for g, results in runs.items()}
    samples = at_strongest(by_step, budget.steps)
    mean = np.mean(list(samples[groups[0]].values()))
    took = f"{budget.steps} steps" if budget.steps > 1 else "1 step"
    several = {"rates": [rates[i] for i in options], "partitions": partitions} if len(rates) * partitions > 1 else {}
    return make_reading(
        _name(by, beside),
        samples,
        f"Within {took} of relearning other facts, held-out answers get a probability of {mean:.2f}.",
        seed=case.seed,
        details={
            "steps": budget.steps, "lr": budget.lr, "folds": folds, "by_step": by_step, "curve": mean_curves(by_step),
            "strongest": strongest(by_step, budget.steps),
            "accuracy": {g: float(np.mean([v for i in options for v in runs[g][i].right])) for g in runs},
            "taught": {g: runs[g][0].taught for g in runs},
            "steps_to_recover": {g: _steps_to_recover(runs[g][0].taught) for g in runs},
            **several,
        },
        cost=cost,
    )  # fmt: skip


def relearn_cost(model: Model, case: Case, setting: Setting, *, beside: Beside = "nothing") -> float:
    """Every fold, partition and rate trained, and every held-out fact asked at first and after each measured step."""
    budget, asked, n = setting.budget or Budget(), pool_costs(model, case), len(_units(case.forget.sealed))
    each = len(case.forget.sealed) / max(n, 1)
    times = setting.effort.partitions * len({budget.lr, *budget.rates})
    rows = _training_size(n, FOLDS) * each + len(material(case, beside))
    training = FORWARD_BACKWARD * rows * budget.steps * min(FOLDS, n)
    return sum(
        times * (training + len(budget.measured_steps) * asked[group]) + asked[group] for group in setting.groups
    )


def with_rates(budget: Budget, setting: Setting) -> Budget:
    """The budget with the further learning rates that the effort asks for."""
    return replace(budget, rates=tuple(budget.lr * rate for rate in setting.effort.rates))


@dataclass(frozen=True)
class _Result:
    """The results on held-out facts. `values`: by step and subject. `right`: whether each whole answer was greedy.

    `taught`: the probability of an answer token in the training facts, before each step.
    """

    values: Mapping[int, Mapping[str, float]]
    right: list[bool]
    taught: list[float]


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


def _attack(
    model: Model,
    among: Pools,
    train: list[Item],
    held_out: list[Item],
    budget: Budget,
    by: Optimizer,
    beside: Sequence[Batch],
) -> _Result:
    values: dict[int, dict[str, float]] = {}
    taught, right = [], []
    with scratch(model) if by != "lora" else nullcontext():
        for step in fine_tune_on_facts(model, train, budget, by=by, beside=beside):
            taught.append(step.before)
            if step.number in budget.measured_steps:
                values[step.number] = pool_probability_by_unit(model, held_out, among)
            if step.number == budget.steps:
                right = recalled(model, held_out)
    return _Result(values, right, taught)
