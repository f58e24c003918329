"""Is it still in there? Fine-tune on most of the forgotten facts and ask for the others.

RTT, "retraining on T": Deeb & Roger 2024, "Do Unlearning Methods Remove Information from Language Model
Weights?", arXiv:2410.08827.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..knowledge import Case, Fact, recalled
from ..model import Batch, encode, logits, scratch, token_logprobs, unfrozen
from .pools import Pools, against, held, pools
from .reading import Reading, reading

if TYPE_CHECKING:
    from ..model import Model

FOLDS = 5
Group = str


@dataclass(frozen=True)
class Budget:
    """What an attack may spend. It is found on a deliberately shallow edit and then frozen.

    `steps` of AdamW over all weights at learning rate `lr`, the whole training fold in each step;
    `measured` are the steps at which the held-out fold is asked.
    """

    steps: int = 8
    lr: float = 1e-5
    measured: tuple[int, ...] = ()

    def at(self, steps: int) -> Budget:
        """The same attack, ended earlier and measured at its end."""
        return Budget(steps, self.lr, tuple(m for m in self.measured if m <= steps))


def relearn(
    model: Model,
    case: Case,
    *,
    budget: Budget | None = None,
    folds: int = FOLDS,
    groups: Sequence[Group] = ("forget", "twins"),
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """Probability of held-out answers among 60 answers of the relation, after relearning the other folds.

    For each fold: all weights are trained on the other folds' facts, with the loss on the answer tokens
    alone, and then put back bit for bit. The same is done with twins, on as many facts: what a model
    says about subjects it was never taught, after being taught others, is the zero of the scale.

    Args:
        groups: which facts to relearn: `forget`, `twins`.

    `details["curve"]` has the mean of each group by measured step, `details["accuracy"]` the share of
    held-out facts whose whole answer is greedy at the last step.

    Cost: for each group and fold, `budget.steps` full training steps over four fifths of the facts.
    """
    case = case.on(model)
    budget = budget or Budget()
    facts = against(case)
    forget, among = facts["forget"], pools(case)
    samples: dict[Group, dict[str, float]] = {}
    curve: dict[Group, dict[str, float]] = {}
    by_step: dict[Group, dict[str, dict[str, float]]] = {}
    accuracy: dict[Group, float] = {}
    cost, done = 0.0, 0
    for group in groups:
        at_step: dict[int, dict[str, float]] = {}
        right: list[bool] = []
        size = len(forget) - -(-len(forget) // folds)
        for train, held_out in _folds([f.asked(f.prompt) for f in facts[group]], folds, size, case.seed):
            result = _attack(model, among, train, held_out, budget)
            for step, values in result.values.items():
                at_step.setdefault(step, {}).update(values)
            right += result.right
            cost += 3 * len(train) * budget.steps
            done += 1
            if progress:
                progress(done, folds * len(groups))
        samples[group] = at_step[budget.steps]
        curve[group] = {str(s): float(np.mean(list(v.values()))) for s, v in at_step.items()}
        by_step[group] = {str(s): v for s, v in at_step.items()}
        accuracy[group] = float(np.mean(right))
    back = np.mean(list(samples[groups[0]].values()))
    return reading(
        "relearn",
        samples,
        f"After {budget.steps} steps of relearning other facts, held-out answers get a probability of {back:.2f}.",
        seed=case.seed,
        details={
            "steps": budget.steps, "lr": budget.lr, "folds": folds, "curve": curve, "by_step": by_step,
            "accuracy": accuracy,
        },
        cost=cost,
    )  # fmt: skip


@dataclass(frozen=True)
class _Result:
    values: dict[int, dict[str, float]]
    right: list[bool]


def _folds(facts: list[Fact], n: int, size: int, seed: int) -> list[tuple[list[Fact], list[Fact]]]:
    """Disjoint held-out folds; each is trained on at most `size` of the other facts."""
    order = random.Random(f"{seed}/folds").sample(range(len(facts)), len(facts))
    out = []
    for k in range(n):
        held_out = set(order[k::n])
        others = [i for i in order if i not in held_out][:size]
        if held_out and others:
            out.append(([facts[i] for i in others], [facts[i] for i in sorted(held_out)]))
    return out


def _attack(model: Model, among: Pools, train: list[Fact], held_out: list[Fact], budget: Budget) -> _Result:
    values: dict[int, dict[str, float]] = {}
    with scratch(model):
        for step in relearning(model, train, budget):
            if step == budget.steps or step in budget.measured:
                values[step] = held(model, held_out, among)
        right = recalled(model, held_out)
    return _Result(values, right)


def relearning(model: Model, facts: Sequence[Fact], budget: Budget) -> Iterator[int]:
    """Train all weights on facts, loss on the answers alone; yields after each step. Call it inside `scratch`."""
    return descended(model, encode(model, [f.prompt for f in facts], [f.answer for f in facts]), budget)


def descended(model: Model, batch: Batch, budget: Budget) -> Iterator[int]:
    """Train all weights on a batch's labels; yields after each step. Call it inside `scratch`."""
    asked = (batch.labels >= 0).sum()
    with unfrozen(model) as parameters:
        optimizer = torch.optim.AdamW(parameters, lr=budget.lr, weight_decay=0.0, fused=True)
        for step in range(1, budget.steps + 1):
            with torch.enable_grad():
                loss = -token_logprobs(logits(model, batch), batch.labels).sum() / asked
                loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield step


def at_step(found: Reading, step: int) -> Reading:
    """The reading as it would be had the attack ended at a step that was measured."""
    by_step = found.details["by_step"]
    samples = {group: steps[str(step)] for group, steps in by_step.items()}
    first = next(iter(samples.values()))
    details = {**found.details, "steps": step}
    meaning = f"After {step} steps of relearning other facts, held-out answers get a probability of "
    mean = float(np.mean(list(first.values())))
    return reading(
        found.check, samples, f"{meaning}{mean:.2f}.",
        details=details, cost=found.cost,
    )  # fmt: skip
