"""Does it come back by itself? Fine-tune on what has nothing to do with it, and ask.

Nothing of the answers is injected, so whatever shows again was never gone. After Łucki et al. 2024, "An Adversarial
Perspective on Machine Unlearning for AI Safety", arXiv:2409.18025.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..knowledge import Case, neutral_sealed
from ..model import Batch, encode, encode_texts, scratch
from .pools import attack_groups, pool_cost, pool_probability_by_unit, pools
from .reading import Reading, reading
from .relearn import Budget, Group, curves, descended

if TYPE_CHECKING:
    from ..model import Model


ROWS = 48


def benign(
    model: Model,
    case: Case,
    *,
    budget: Budget | None = None,
    rows: int = ROWS,
    groups: Sequence[Group] = ("forget", "twins"),
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """Probability of the answers among 60 of the relation, after fine-tuning on other things; the worse of two.

    All weights are trained on retain facts (loss on the answers), and, from the same start, on neutral text (loss on
    every token), and then put back bit for bit. A subject's number is the higher of the two; twins go through the same.

    Args:
        budget: steps and learning rate. In `details["by_kind"]` are the means by kind of training and group, in
            `details["curve"]` those of the worse of the two by measured step.
        rows: at most so many retain facts (drawn by the seed) or passages, all of them in each step.
        groups: which facts to ask: `forget`, `twins`.

    Cost: `2 * budget.steps` full training steps over at most `rows` rows, and the answers asked twice a measured step.
    """
    case = case.on(model)
    budget = budget or Budget()
    facts, among = {group: of for group, of in attack_groups(case).items() if group in groups}, pools(case)
    kinds = _kinds(model, case, rows)
    found: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    for done, (kind, batch) in enumerate(kinds.items()):
        found[kind] = {group: {} for group in facts}
        with scratch(model):
            for step in descended(model, batch, budget):
                if step.number in budget.asked:
                    for group, some in facts.items():
                        found[kind][group][step.number] = pool_probability_by_unit(model, some, among)
        if progress:
            progress(done + 1, len(kinds))
    by_step = {g: {str(step): _worse([found[k][g][step] for k in kinds]) for step in budget.asked} for g in facts}
    samples = {g: steps[str(budget.steps)] for g, steps in by_step.items()}
    mean = np.mean(list(samples["forget"].values()))
    return reading(
        "benign",
        samples,
        f"After {budget.steps} steps on kept facts or on neutral text, nothing of the answers among them, "
        f"the answers get a probability of {mean:.2f}.",
        seed=case.seed,
        details={
            "steps": budget.steps, "lr": budget.lr, "by_step": by_step, "curve": curves(by_step),
            "by_kind": {k: {g: _mean(of[g][budget.steps]) for g in facts} for k, of in found.items()},
        },
        cost=sum(3 * len(b.ids) * budget.steps for b in kinds.values())
        + len(kinds) * len(budget.asked) * sum(pool_cost(model, some, among) for some in facts.values()),
    )  # fmt: skip


def _worse(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {subject: max(of[subject] for of in found) for subject in found[0]}


def _mean(of: dict[str, float]) -> float:
    return float(np.mean(list(of.values())))


def _kinds(model: Model, case: Case, rows: int) -> dict[str, Batch]:
    retain = [*case.retain.working, *case.retain.sealed]
    some = random.Random(f"{case.seed}/benign").sample(retain, min(rows, len(retain)))
    texts = neutral_sealed(case)[:rows]
    return {
        "retain": encode(model, [f.prompt for f in some], [f.answer for f in some]),
        "text": encode_texts(model, texts),
    }
