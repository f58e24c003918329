"""Does it still show? Whole answers by greedy decoding, log-odds against foils, choice among four."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..knowledge import Case, Fact, pool_logprobs, recalled
from .reading import Reading, reading

if TYPE_CHECKING:
    from ..model import Model

CHOICES = 4


def recall(model: Model, case: Case) -> Reading:
    """Share of sealed prompts whose whole answer greedy decoding gives, by forget subject.

    `details` has the same on working prompts (`working`), the log-odds of the answer against its nine
    foils (`log_odds`, in nats) and how often the answer is the likeliest of itself and three foils
    (`choice`, chance 0.25; by likelihood, so the order of options plays no part).

    Cost: one row a prompt and alias, and one row a pool answer of more than one token.
    """
    case = case.on(model)
    forget, twins = list(case.forget.sealed), list(case.twins.sealed)
    samples = {"forget": by_subject(model, forget), "twins": by_subject(model, twins)}
    odds, choice = _against_foils(model, case, forget)
    twin_odds, twin_choice = _against_foils(model, case, twins[: len(forget)])
    working = by_subject(model, list(case.forget.working))
    shown = float(np.mean(list(samples["forget"].values())))
    return reading(
        "recall",
        samples,
        f"Asked behind sealed templates, the model gives {shown:.0%} of the answers in full.",
        seed=case.seed,
        details={
            "working": float(np.mean(list(working.values()))),
            "log_odds": odds, "log_odds_twins": twin_odds, "choice": choice, "choice_twins": twin_choice,
        },
        cost=sum(len(f.prompts) * len(f.answers) for f in [*forget, *twins, *case.forget.working]),
    )  # fmt: skip


def by_subject(model: Model, facts: Sequence[Fact]) -> dict[str, float]:
    """Of each fact, the share of its prompts that get the whole answer; keys are `relation/subject`."""
    asked = [f.asked(p) for f in facts for p in f.prompts]
    right = iter(recalled(model, asked))
    return {key(f): float(np.mean([next(right) for _ in f.prompts])) for f in facts}


def key(fact: Fact) -> str:
    """How samples name a subject."""
    return f"{fact.relation}/{fact.subject}"


def _against_foils(model: Model, case: Case, facts: Sequence[Fact]) -> tuple[float, float]:
    odds, choice = [], []
    for relation in dict.fromkeys(f.relation for f in facts):
        some = [f for f in facts if f.relation == relation]
        pool = list(dict.fromkeys([*case.pool(relation), *(a for f in some for a in f.answers)]))
        at = {a: i for i, a in enumerate(pool)}
        logp = pool_logprobs(model, [f.prompt for f in some], pool)
        for fact, row in zip(some, logp, strict=True):
            right = torch.logsumexp(row[[at[a] for a in fact.answers]], 0)
            foils = row[[at[f] for f in fact.foils]]
            odds.append(float(right - torch.logsumexp(foils, 0) + np.log(len(foils))))
            choice.append(bool((right > foils[: CHOICES - 1]).all()))
    return float(np.mean(odds)), float(np.mean(choice))
