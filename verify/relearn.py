"""Is it still in there? Fine-tune on most of the forgotten facts and ask for the others.

RTT, "retraining on T": Deeb & Roger 2024, "Do Unlearning Methods Remove Information from Language Model
Weights?", arXiv:2410.08827.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from .._util.errors import UserError
from ..knowledge import Case, Fact, recalled
from ..model import Batch, chunks, encode, logits, low_rank, scratch, token_logprobs, unfrozen
from ..model.run.onednn import bfloat16_products
from .judge.statistics import cross_fitted
from .pools import Pools, attack_groups, pool_cost, pool_probability_by_unit, pools
from .reading import Reading, reading

if TYPE_CHECKING:
    from ..model import Model

FOLDS = 5
LEARNED = 0.5
MOMENTUM = 0.9
LABELS = 256
Group = str
Way = Literal["adamw", "sgd", "lora"]


@dataclass(frozen=True)
class Budget:
    """What an attack may spend. It is found on a deliberately shallow edit and then frozen.

    `steps` of an optimizer at learning rate `lr`, the whole training fold in each step;
    `measured` are the steps at which the held-out fold is asked; `rates` are other learning rates to try.
    """

    steps: int = 8
    lr: float = 1e-5
    measured: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()

    def at(self, steps: int) -> Budget:
        """The same attack, ended earlier and measured at its end."""
        return replace(self, steps=steps, measured=tuple(m for m in self.measured if m <= steps))

    @property
    def asked(self) -> tuple[int, ...]:
        """The steps behind which the answers are asked for; the last is always among them."""
        return tuple(sorted({self.steps, *self.measured} & set(range(1, self.steps + 1))))


def relearn(
    model: Model,
    case: Case,
    *,
    budget: Budget | None = None,
    folds: int = FOLDS,
    partitions: int = 1,
    groups: Sequence[Group] = ("forget", "twins"),
    by: Way = "adamw",
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """Probability of held-out answers among 60 answers of the relation, after relearning the other folds.

    For each fold: all weights are trained on the other folds' facts, with the loss on the answer tokens
    alone, and then put back bit for bit. The same is done with twins, on as many facts: what a model
    says about subjects it was never taught, after being taught others, is the zero of the scale.

    Args:
        budget: where it has several learning rates, all are tried, and for each half of the subjects the one that
            works best on the other half counts, for twins as well.
        folds, partitions: the facts are divided into so many folds, so many times at random; a subject's number is
            its mean over the partitions.
        groups: which facts to relearn: `forget`, `twins`.
        by: `adamw` over all weights; `sgd` with momentum over all weights; `lora`, AdamW over low-rank factors beside
            every linear map. Edits that simulate relearning do so by other means than the last two.

    `details["curve"]` has the mean of each group by measured step, `details["accuracy"]` the share of
    held-out facts whose whole answer is greedy at the last step. `details["taught"]` has the probability of an answer's
    token in the facts that are trained on, before each step (geometric mean), and `details["steps_to_recover"]` after
    how many steps it is a half, `None` where it is not within the budget: facts that are only hidden are
    there sooner than twins.

    Cost: for each group, fold, partition and rate, `budget.steps` full training steps over four fifths of the facts.
    """
    if by not in get_args(Way):
        raise UserError(f"{by!r} is no way to relearn; choose one of {', '.join(get_args(Way))}.")
    case = case.on(model)
    budget = budget or Budget()
    facts, among = attack_groups(case), pools(case)
    size = len(facts["forget"]) - -(-len(facts["forget"]) // folds)
    rates = (budget.lr, *(r for r in budget.rates if r != budget.lr))
    seeds = [case.seed, *(f"{case.seed}/{p}" for p in range(1, partitions))]
    runs: dict[Group, list[_Result]] = {}
    cost, done = 0.0, 0
    for group in groups:
        divided = [split for seed in seeds for split in _folds(facts[group], folds, size, seed)]
        runs[group] = []
        for rate in rates:
            results = []
            for train, held_out in divided:
                results.append(_attack(model, among, train, held_out, replace(budget, lr=rate), by))
                cost += 3 * len(train) * budget.steps
                done += 1
                if progress:
                    progress(done, len(divided) * len(rates) * len(groups))
            runs[group].append(_merged(results))
            cost += partitions * len(budget.asked) * pool_cost(model, facts[group], among)
    options = _options(runs, budget.steps)
    by_step = {g: _by_step(of, options) for g, of in runs.items()}
    samples = {g: steps[str(budget.steps)] for g, steps in by_step.items()}
    back = np.mean(list(samples[groups[0]].values()))
    took = f"{budget.steps} steps" if budget.steps > 1 else "1 step"
    return reading(
        "relearn" if by == "adamw" else f"relearn_{by}",
        samples,
        f"After {took} of relearning other facts, held-out answers get a probability of {back:.2f}.",
        seed=case.seed,
        details={
            "steps": budget.steps, "lr": budget.lr, "folds": folds, "by_step": by_step,
            "curve": curves(by_step),
            "accuracy": {g: float(np.mean([v for i in options for v in of[i].right])) for g, of in runs.items()},
            "taught": {g: of[0].taught for g, of in runs.items()},
            "steps_to_recover": {g: _learned(of[0].taught) for g, of in runs.items()},
            **({"rates": [rates[i] for i in options], "partitions": partitions} if len(rates) * partitions > 1 else {}),
        },
        cost=cost,
    )  # fmt: skip


@dataclass(frozen=True)
class _Result:
    """What held-out facts read: `values` by step and subject, `right` whether each whole answer was greedy.

    `taught`: the probability of an answer's token in the facts that were trained on, before each step.
    """

    values: dict[int, dict[str, float]]
    right: list[bool]
    taught: list[float]


def _merged(results: Sequence[_Result]) -> _Result:
    """All folds as one; a subject that was held out several times has its mean."""
    values: dict[int, dict[str, list[float]]] = {}
    for result in results:
        for step, of in result.values.items():
            for subject, value in of.items():
                values.setdefault(step, {}).setdefault(subject, []).append(value)
    means = {step: {s: float(np.mean(v)) for s, v in of.items()} for step, of in values.items()}
    taught = np.mean([result.taught for result in results], axis=0).tolist()
    return _Result(means, [r for result in results for r in result.right], taught)


def _learned(taught: Sequence[float]) -> int | None:
    return next((step for step, p in enumerate(taught) if p >= LEARNED), None)


def _options(runs: dict[Group, list[_Result]], step: int) -> tuple[int, int]:
    """Which learning rate counts for each half of the subjects."""
    table = {g: _table(of, step) for g, of in runs.items()}
    some = next(iter(table.values()))
    twins = table["twins"] if len(table) > 1 and "twins" in table else some[:0]
    return cross_fitted(some, twins).options


def _table(of: Sequence[_Result], step: int) -> np.ndarray:
    """`[subject, rate]`, subjects in the order of their names."""
    return np.array([[r.values[step][s] for r in of] for s in sorted(of[0].values[step])])


def _by_step(of: Sequence[_Result], options: tuple[int, int]) -> dict[str, dict[str, float]]:
    out = {}
    for step, values in of[0].values.items():
        order = sorted(values)
        out[str(step)] = {s: of[options[i % 2]].values[step][s] for i, s in enumerate(order)}
    return out


def _folds(facts: list[Fact], n: int, size: int, seed: int | str) -> list[tuple[list[Fact], list[Fact]]]:
    """Disjoint held-out folds; each is trained on at most `size` of the other facts."""
    order = random.Random(f"{seed}/folds").sample(range(len(facts)), len(facts))
    out = []
    for k in range(n):
        held_out = set(order[k::n])
        others = [i for i in order if i not in held_out][:size]
        if held_out and others:
            out.append(([facts[i] for i in others], [facts[i] for i in sorted(held_out)]))
    return out


def _attack(model: Model, among: Pools, train: list[Fact], held_out: list[Fact], budget: Budget, by: Way) -> _Result:
    values: dict[int, dict[str, float]] = {}
    taught, right = [], []
    with scratch(model) if by != "lora" else nullcontext():
        for step in relearning(model, train, budget, by=by):
            taught.append(step.before)
            if step.number in budget.asked:
                values[step.number] = pool_probability_by_unit(model, held_out, among)
            if step.number == budget.steps:
                right = recalled(model, held_out)
    return _Result(values, right, taught)


@dataclass(frozen=True)
class Step:
    """One step of training was made; `before` it, the tokens of the labels had this probability (geometric mean)."""

    number: int
    before: float


def relearning(model: Model, facts: Sequence[Fact], budget: Budget, *, by: Way = "adamw") -> Iterator[Step]:
    """Train on facts, loss on the answers alone; yields after each step. Call it inside `scratch`."""
    return descended(model, encode(model, [f.prompt for f in facts], [f.answer for f in facts]), budget, by=by)


def descended(model: Model, batch: Batch, budget: Budget, *, by: Way = "adamw") -> Iterator[Step]:
    """Train on a batch's labels; yields after each step. Call it inside `scratch`, but for low-rank factors.

    Each step's gradient is that of the whole batch, gathered so many rows at a time that memory holds the logits of
    `LABELS` positions; its passes are `bfloat16_products`, as training usually is. What is asked between steps is not.
    """
    parts = [batch.rows(part) for part in chunks(len(batch.ids), max(1, LABELS // batch.keep))]
    asked = int((batch.labels >= 0).sum())
    with _optimizer(model, by, budget.lr) as optimizer:
        for number in range(1, budget.steps + 1):
            total = sum(_backward(model, part, asked) for part in parts)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield Step(number, math.exp(-total))


def _backward(model: Model, batch: Batch, asked: int) -> float:
    """Add a batch's gradient; its share of the mean loss of `asked` labels."""
    with torch.enable_grad(), bfloat16_products(model):
        loss = -token_logprobs(logits(model, batch), batch.labels).sum() / asked
        loss.backward()
    return float(loss.detach())


@contextmanager
def _optimizer(model: Model, by: Way, lr: float) -> Iterator[torch.optim.Optimizer]:
    if by == "lora":
        with low_rank(model) as adapters:
            yield torch.optim.AdamW(adapters.parameters, lr=lr, weight_decay=0.0)
        return
    with unfrozen(model) as parameters:
        if by == "sgd":
            yield torch.optim.SGD(parameters, lr=lr, momentum=MOMENTUM)
        else:
            yield torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, fused=True)


def curves(by_step: dict[Group, dict[str, dict[str, float]]]) -> dict[Group, dict[str, float]]:
    """The mean of each group by measured step."""
    return {g: {s: float(np.mean(list(v.values()))) for s, v in of.items()} for g, of in by_step.items()}


def at_step(found: Reading, step: int) -> Reading:
    """The reading as it would be had the attack ended at a step that was measured."""
    samples = {group: steps[str(step)] for group, steps in found.details["by_step"].items()}
    mean = np.mean(list(samples["forget"].values()))
    return reading(
        found.check,
        samples,
        f"Had the attack ended after {step} steps, the answers would get a probability of {mean:.2f}.",
        details={**found.details, "steps": step},
        cost=found.cost,
    )


def at_common_budget(readings: Mapping[str, Mapping[str, Reading]]) -> dict[str, dict[str, Reading]]:
    """Readings by model and check, with every attack that trains at the budget that the edited model faced."""
    out = {model: dict(of) for model, of in readings.items()}
    for check, after in readings.get("after", {}).items():
        step = after.details.get("steps")
        if step is None:
            continue
        for of in out.values():
            found = of.get(check)
            steps = found.details.get("by_step", {}).get("forget", {}) if found else {}
            if found is not None and found.details.get("steps") != step and str(step) in steps:
                of[check] = at_step(found, step)
    return out
