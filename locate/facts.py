"""From raw scores of prompt pairs to a localization: what every locator by facts has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from ..knowledge import Case
from ..model import Model, Part, chunks
from .counterfactual import Pairs, pairs
from .localization import Localization, contrast

Scores = dict[Part, np.ndarray]
Raw = Callable[[Model, Pairs], tuple[Scores, np.ndarray]]


def over_facts(
    model: Model,
    case: Case,
    raw: Raw,
    *,
    rows: int,
    spare: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    **about: Any,
) -> Localization:
    """Score the forget facts and the retain facts of the same relations, and take the contrast.

    Args:
        raw: gives, for pairs of prompts, scores by part `[row, layer, unit]` and each row's whole effect `[row]`.
        spare: where given, the contrast is with all retain facts, and with this many times the size of their scores.
        rows: pairs in one batch.
        progress: called with pairs done and pairs in all.
        about: what the localization tells of how it was made.
    """
    case = case.on(model)
    relations = set(case.forgotten_relations)
    near = [] if spare is not None else [f for f in case.retain.working if f.relation in relations]
    retain = near or list(case.retain.working)
    facts = [*case.forget.working, *retain]
    scores, falls = [], []
    for part in chunks(len(facts), rows):
        some, fall = raw(model, pairs(model, case, facts[part]))
        scores.append(some)
        falls.append(fall)
        if progress:
            progress(part.stop, len(facts))
    joined = cast(Scores, {p: np.concatenate([s[p] for s in scores]) for p in scores[0]})
    if spare is not None:
        about["spare"] = spare
        for scores_of in joined.values():
            scores_of[len(case.forget.working) :] = spare * np.abs(scores_of[len(case.forget.working) :])
    return contrast(
        joined,
        np.concatenate(falls),
        n_forget=len(case.forget.working),
        subjects=[f.subject for f in facts],
        seed=case.seed,
        about={**about, "model": model.name, "case": case.name, "digest": model.digest()},
    )
