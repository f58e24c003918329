"""The common scale of the attacks: the probability of the right answer among a pool of answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..knowledge import Case, Fact, pool_probability
from .units import unit_key

if TYPE_CHECKING:
    from ..model import Model

POOL = 60
Pools = Mapping[str, tuple[str, ...]]


def attack_groups(case: Case) -> dict[str, list[Fact]]:
    """The facts to forget, each with its first sealed prompt, and as many twins: `forget` and `twins`."""
    forget = [f.asked(f.prompt) for f in case.forget.sealed]
    twins = [f.asked(f.prompt) for f in case.twins.sealed]
    return {"forget": forget, "twins": twins[: len(forget)]}


def pools(case: Case) -> dict[str, tuple[str, ...]]:
    """The pool of each forgotten relation: the answers of all its facts and twins, filled up at random to `POOL`."""
    return {r: _pool(case, r) for r in case.forgotten_relations}


def pool_probability_by_unit(model: Model, facts: Sequence[Fact], among: Pools) -> dict[str, float]:
    """The probability of each fact's answer among its relation's pool, 0 to 1, by `relation/subject`.

    Cost: one row for each fact, and one short continuation for each answer of several tokens (`pool_cost`).
    """
    out: dict[str, float] = {}
    for relation in dict.fromkeys(f.relation for f in facts):
        group = [f for f in facts if f.relation == relation]
        p = pool_probability(model, group, among[relation])
        out.update({unit_key(f): float(v) for f, v in zip(group, p, strict=True)})
    return out


def pool_cost(model: Model, facts: Sequence[Fact], among: Pools) -> float:
    """The cost of `pool_probability_by_unit`, in rows as long as the prompts."""
    rows = 0.0
    for relation in dict.fromkeys(f.relation for f in facts):
        prompts = [f.prompt for f in facts if f.relation == relation]
        lengths = [len(ids) for ids in model.tokenizer(prompts)["input_ids"]]
        first = len(model.tokenizer(prompts[0])["input_ids"])
        tails = [
            len(ids) - first for ids in model.tokenizer([f"{prompts[0]} {a}" for a in among[relation]])["input_ids"]
        ]
        rows += len(prompts) + sum(t - 1 for t in tails) * len(prompts) ** 2 / sum(lengths)
    return rows


def pool_costs(model: Model, case: Case) -> dict[str, float]:
    """The cost of asking each group of `attack_groups` once, by group."""
    return {group: pool_cost(model, facts, pools(case)) for group, facts in attack_groups(case).items()}


def _pool(case: Case, relation: str) -> tuple[str, ...]:
    facts = attack_groups(case)
    answers = dict.fromkeys(f.answer for f in facts["forget"] + facts["twins"] if f.relation == relation)
    others = sorted(set(case.pool(relation)) - set(answers))
    more = random.Random(f"{case.seed}/pool").sample(others, min(len(others), max(0, POOL - len(answers))))
    return (*answers, *more)
