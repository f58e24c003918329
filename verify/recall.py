"""Does it still show? Whole answers by greedy decoding, log-odds against foils, choice among four."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..knowledge import Case, Fact, recalled, score
from .reading import Reading, reading

if TYPE_CHECKING:
    from ..model import Model

CHOICES = 4


def recall(model: Model, case: Case) -> Reading:
    """Share of sealed prompts whose whole answer greedy decoding gives, by forget subject.

    `details` has the same on working prompts (`working`), the log-odds of the answer against its nine
    foils (`log_odds`, in nats) and how often the answer is the likeliest of itself and three foils
    (`choice`, chance 0.25; by likelihood, so the order of options plays no part).

    Cost: one row a prompt and alias, and ten rows a fact; as many twins as forget subjects.
    """
    case = case.on(model)
    forget = list(case.forget.sealed)
    twins = list(case.twins.sealed)[: len(forget)]
    samples = {"forget": by_subject(model, forget), "twins": by_subject(model, twins)}
    odds, choice = _against_foils(model, forget)
    twin_odds, twin_choice = _against_foils(model, twins)
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
        cost=sum(len(f.prompts) * len(f.answers) for f in [*forget, *twins, *case.forget.working])
        + sum(1 + len(f.foils) for f in [*forget, *twins]),
    )  # fmt: skip


def by_subject(model: Model, facts: Sequence[Fact]) -> dict[str, float]:
    """Of each fact, the share of its prompts that get the whole answer; keys are `relation/subject`."""
    asked = [f.asked(p) for f in facts for p in f.prompts]
    right = iter(recalled(model, asked))
    return {key(f): float(np.mean([next(right) for _ in f.prompts])) for f in facts}


def key(fact: Fact) -> str:
    """How samples name a subject."""
    return f"{fact.relation}/{fact.subject}"


def _against_foils(model: Model, facts: Sequence[Fact]) -> tuple[float, float]:
    """Mean log-odds of the answer against its foils in nats, and the share of facts whose answer beats three."""
    rows = [(f.prompt, a) for f in facts for a in (f.answer, *f.foils)]
    logp = iter(score(model, [p for p, _ in rows], [a for _, a in rows]).logprob.double().numpy())
    odds, choice = [], []
    for fact in facts:
        right, *foils = (next(logp) for _ in range(1 + len(fact.foils)))
        odds.append(float(right - np.logaddexp.reduce(foils) + np.log(len(foils))))
        choice.append(right > max(foils[: CHOICES - 1]))
    return float(np.mean(odds)), float(np.mean(choice))
