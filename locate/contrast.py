"""From raw scores of prompt pairs to a localization: the steps that all locators share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
from pydantic import JsonValue
from scipy import stats

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec
from ..model import Model, Part, chunks
from .counterfactual import Pairs, pairs
from .localization import COLUMNS, Localization
from .record import LocalizationRecord

RESAMPLES = 200
TOP_SHARE = 0.005
Scores = dict[Part, np.ndarray]
Scorer = Callable[[Model, Pairs], tuple[Scores, np.ndarray]]
Progress = Callable[[int, int], None]


@accepts_spec
def contrast_items(
    model: Model,
    case: Case,
    scorer: Scorer,
    *,
    method: str,
    rows: int,
    spare: float | None = None,
    settings: Mapping[str, JsonValue] | None = None,
    progress: Progress | None = None,
) -> Localization:
    """Score the forget facts and the retain facts of the same relations, and contrast the two.

    Args:
        scorer: gives raw scores of prompt pairs, `[row, layer, unit]` by part, and each row's whole effect, `[row]`.
        method: the locator's name, for the record.
        rows: pairs in one batch.
        spare: contrast with all retain facts instead, with this many times the size of their scores.
        settings: the locator's options, for the record.
        progress: called with the number of pairs done and the number of all pairs.
    """
    forget = case.forget.working
    facts = [*forget, *(comparison_facts(case) if spare is None else case.retain.working)]
    batches, falls = [], []
    for part in chunks(len(facts), rows):
        scores, fall = scorer(model, pairs(model, case, facts[part]))
        batches.append(scores)
        falls.append(fall)
        if progress:
            progress(part.stop, len(facts))
    joined = cast(Scores, {p: np.concatenate([s[p] for s in batches]) for p in batches[0]})
    if spare is not None:
        for values in joined.values():
            values[len(forget) :] = spare * np.abs(values[len(forget) :])
    record = LocalizationRecord.of(method, model, case, settings)
    return contrast(joined, np.concatenate(falls), n_forget=len(forget), record=record)


def comparison_facts(case: Case) -> list[Item]:
    """The working retain facts of the relations to forget; all working retain facts where there are none."""
    return case.same_relation(case.retain.working) or list(case.retain.working)


def contrast(scores: Scores, falls: np.ndarray, *, n_forget: int, record: LocalizationRecord) -> Localization:
    """Subtract the retain items' mean scores from the forget items', with intervals over items.

    Without retain items, as in a circuit task, the scores are the forget items' own.

    Args:
        scores: by part `[fact, layer, unit]`, forget facts first.
        falls: `[fact]`, each fact's whole effect; its scores are divided by it. Facts whose effect is less than a
            tenth of the median are left out, because their shares would be noise.
        n_forget: how many of the facts are to be forgotten.
        record: how the scores were made. The localization's record counts the facts that were used.

    Raises:
        UserError: no forget fact, or no retain fact, has an effect.
    """
    used = falls > 0.1 * np.median(np.abs(falls))
    forget = np.flatnonzero(used[:n_forget])
    retain = n_forget + np.flatnonzero(used[n_forget:])
    if not len(forget) or (len(falls) > n_forget and not len(retain)):
        raise UserError(
            "no answer depends on its subject here, so there is nothing to locate; check the case's templates."
        )
    frames = [
        _table(part, raw / falls[:, None, None].clip(1e-9), raw[forget].mean(0), forget, retain, record.seed)
        for part, raw in scores.items()
    ]
    record = replace(record, n_forget=len(forget), n_retain=len(retain))
    return Localization(pd.concat(frames, ignore_index=True), record)


def _table(
    part: Part, shares: np.ndarray, raw: np.ndarray, forget: np.ndarray, retain: np.ndarray, seed: int
) -> pd.DataFrame:
    n_units = raw.shape[1]
    a, b = (shares[rows].reshape(len(rows), raw.size) for rows in (forget, retain))
    if not len(b):
        b = np.zeros((1, a.shape[1]))
    score = a.mean(0) - b.mean(0)
    low, high, frequency = _bootstrap(a, b, seed)
    with np.errstate(all="ignore"):
        test: Any = (
            stats.ttest_ind(a, b, equal_var=False, alternative="greater")
            if len(retain)
            else stats.ttest_1samp(a, 0.0, alternative="greater")
        )
    q = stats.false_discovery_control(np.nan_to_num(test.pvalue, nan=1.0))
    layer, index = np.divmod(np.arange(score.size), n_units)
    return pd.DataFrame(
        {
            "layer": layer, "part": part, "index": index, "position": pd.array([None] * score.size, dtype="Int64"),
            "score": score, "low": low, "high": high, "frequency": frequency, "q": q,
            "role": pd.array([None] * score.size, dtype="string"),
            "forget": a.mean(0), "retain": b.mean(0), "raw": raw.reshape(-1),
        }
    )[list(COLUMNS)]  # fmt: skip


def _bootstrap(a: np.ndarray, b: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 95% interval of each site's contrast, and how often the site is among the best, over resampled facts."""
    rng = np.random.default_rng(seed)

    def weights(n: int) -> np.ndarray:
        return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float32) / n

    draws = weights(len(a)) @ a.astype(np.float32) - weights(len(b)) @ b.astype(np.float32)
    k = max(1, round(TOP_SHARE * a.shape[1]))
    best = np.partition(draws, -k, axis=1)[:, -k, None]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return low, high, (draws >= best).mean(0)
