"""The common scale of the attacks: the probability of the right answer among a pool of answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..knowledge import Case, Item, pool_probability
from ..knowledge.kinds import kind_of
from ..knowledge.scoring import own_pool_probability, own_pool_scores, pool_logprobs
from ..model import split, token_ids
from .units import by_unit

if TYPE_CHECKING:
    from ..model import Model

POOL = 60
Pools = Mapping[str, tuple[str, ...]]


def attack_groups(case: Case) -> dict[str, list[Item]]:
    """The items to forget, each with its first sealed prompt, and twins: `forget` and `twins`.

    There are as many twins as items to forget. Where items have small pools of their own, what a model prefers there by
    chance varies more, so there are up to `POOL` twins.
    """
    forget = [f.asked(f.prompt) for f in case.forget.sealed]
    twins = [f.asked(f.prompt) for f in case.twins.sealed]
    most = len(forget) if all(kind_of(f).shared for f in forget) else max(len(forget), POOL)
    return {"forget": forget, "twins": twins[:most]}


def pools(case: Case) -> dict[str, tuple[str, ...]]:
    """The pool of each relation whose items share one: the answers of its items and twins, filled up to `POOL`.

    Twins of a set of their own have the pool of the first forgotten relation.
    """
    shared = {i.relation: _pool(case, i.relation) for i in case.forget.sealed if kind_of(i).shared}
    first = next(iter(shared.values()), ())
    return {i.relation: first for i in case.twins.sealed if kind_of(i).shared} | shared


def pool_probability_by_unit(model: Model, items: Sequence[Item], among: Pools) -> dict[str, float]:
    """The probability of each item's answer among its pool, 0 to 1, by `relation/unit`.

    The pool of a fact is that of its relation; any other item has its own, the answer and its foils.

    Cost: one row for each item, and one short continuation for each answer of several tokens (`pool_cost`).
    """
    found = torch.zeros(len(items), dtype=torch.double)
    for relation, places in _grouped(items).items():
        group = [items[i] for i in places]
        p = pool_probability(model, group, among[relation]) if relation else own_pool_probability(model, group)
        found[places] = p.double()
    return by_unit(items, found.tolist())


def pool_cost(model: Model, items: Sequence[Item], among: Pools) -> float:
    """The cost of `pool_probability_by_unit`, in rows as long as the prompts."""
    rows = 0.0
    for relation, places in _grouped(items).items():
        group = [items[i] for i in places]
        prompts = [i.prompt for i in group]
        lengths = [len(ids) for ids in token_ids(model, prompts)]
        if relation:
            tails = split(model, [prompts[0]] * len(among[relation]), among[relation])
            more = sum(len(tail) - 1 for _, tail in tails) * len(prompts)
        else:
            every = [(i.prompt, a) for i in group for a in i.pool]
            more = sum(len(tail) - 1 for _, tail in split(model, [p for p, _ in every], [a for _, a in every]))
        rows += len(prompts) + more * len(prompts) / sum(lengths)
    return rows


def pool_costs(model: Model, case: Case) -> dict[str, float]:
    """The cost of asking each group of `attack_groups` once, by group."""
    return {group: pool_cost(model, items, pools(case)) for group, items in attack_groups(case).items()}


def with_rivals(model: Model, items: Sequence[Item], among: Pools, n: int) -> list[Item]:
    """The items with the `n` wrong answers of their pools that the model now prefers, the likeliest first, as foils.

    Cost: that of `pool_probability_by_unit`.
    """
    out = list(items)
    for relation, places in _grouped(items).items():
        group = [items[i] for i in places]
        if relation:
            scores = list(pool_logprobs(model, [i.prompt for i in group], among[relation]))
        else:
            scores = own_pool_scores(model, group)
        for place, item, row in zip(places, group, scores, strict=True):
            order = [(among[relation] if relation else item.pool)[i] for i in row.argsort(descending=True).tolist()]
            out[place] = replace(item, foils=tuple(a for a in order if a not in item.answers)[:n])
    return out


def _grouped(items: Sequence[Item]) -> dict[str, list[int]]:
    """The places of the items by the relation whose pool they share; those with pools of their own under ""."""
    groups: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(item.relation if kind_of(item).shared else "", []).append(i)
    return groups


def _pool(case: Case, relation: str) -> tuple[str, ...]:
    items = attack_groups(case)
    answers = dict.fromkeys(f.answer for f in items["forget"] + items["twins"] if f.relation == relation)
    others = sorted(set(case.pool(relation)) - set(answers))
    more = random.Random(f"{case.seed}/pool").sample(others, min(len(others), max(0, POOL - len(answers))))
    return (*answers, *more)
