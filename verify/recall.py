"""Does the model still answer? Whole answers by greedy decoding, log-odds against foils, choice among four."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..knowledge import Case, Fact, accepts_spec, score
from .check import Setting
from .reading import Reading, make_reading
from .units import recall_by_unit

if TYPE_CHECKING:
    from ..model import Model

CHOICES = 4


@accepts_spec
def recall(model: Model, case: Case) -> Reading:
    """The share of sealed prompts whose whole answer greedy decoding gives, by forget subject.

    `details` has the same share on working prompts (`working`), the log-odds of the answer against its nine foils
    (`log_odds`, in nats), and how often the answer is the likeliest of itself and three foils (`choice`; chance is
    0.25). The choice is made by likelihood, so the order of the options does not matter.

    Cost: one row for each prompt and alias, and ten rows for each fact; as many twins as forget subjects.
    """
    forget = list(case.forget.sealed)
    twins = list(case.twins.sealed)[: len(forget)]
    samples = {"forget": recall_by_unit(model, forget), "twins": recall_by_unit(model, twins)}
    odds, choice = _against_foils(model, forget)
    twin_odds, twin_choice = _against_foils(model, twins)
    working = recall_by_unit(model, list(case.forget.working))
    mean = float(np.mean(list(samples["forget"].values())))
    return make_reading(
        "recall",
        samples,
        f"With sealed prompts, the model gives {mean:.0%} of the answers in full.",
        seed=case.seed,
        details={
            "working": float(np.mean(list(working.values()))),
            "log_odds": odds, "log_odds_twins": twin_odds, "choice": choice, "choice_twins": twin_choice,
        },
        cost=recall_cost(model, case, Setting()),
    )  # fmt: skip


def recall_cost(model: Model, case: Case, setting: Setting) -> float:
    """One row for each prompt and alias, and one for each answer and foil of a fact."""
    facts = [*case.forget.sealed, *case.twins.sealed[: len(case.forget.sealed)]]
    asked = sum(len(f.prompts) * len(f.answers) for f in [*facts, *case.forget.working])
    return asked + sum(1 + len(f.foils) for f in facts)


def _against_foils(model: Model, facts: Sequence[Fact]) -> tuple[float, float]:
    """Mean log-odds of the answer against its foils in nats, and the share of facts whose answer beats three.

    NaN without facts.
    """
    if not facts:
        return math.nan, math.nan
    rows = [(f.prompt, a) for f in facts for a in (f.answer, *f.foils)]
    logp = iter(score(model, [p for p, _ in rows], [a for _, a in rows]).logprob.double().numpy())
    odds, choice = [], []
    for fact in facts:
        right, *foils = (next(logp) for _ in range(1 + len(fact.foils)))
        odds.append(float(right - np.logaddexp.reduce(foils) + np.log(len(foils))))
        choice.append(right > max(foils[: CHOICES - 1]))
    return float(np.mean(odds)), float(np.mean(choice))
