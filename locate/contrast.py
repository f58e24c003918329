"""From raw scores of prompt pairs to a localization: the steps that all locators share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
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
        spare: contrast with whichever needs a site more, the retain facts of the same relations or all others, and
            count what they need this many times. What a site does against them is not counted.
        settings: the locator's options, for the record.
        progress: called with the number of pairs done and the number of all pairs.
    """
    forget, retain = case.forget.working, case.retain.working
    same, other = case.same_relation(retain), case.other_relation(retain)
    groups = [comparison_facts(case)] if spare is None else [group for group in (same, other) if group]
    facts = [*forget, *(fact for group in groups for fact in group)]
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
            values[len(forget) :] = spare * values[len(forget) :].clip(0)
    record = LocalizationRecord.of(method, model, case, settings)
    sizes = [len(group) for group in groups]
    return contrast(joined, np.concatenate(falls), n_forget=len(forget), record=record, groups=sizes)


def comparison_facts(case: Case) -> list[Item]:
    """The working retain facts of the relations to forget; all working retain facts where there are none."""
    return case.same_relation(case.retain.working) or list(case.retain.working)


def contrast(
    scores: Scores, falls: np.ndarray, *, n_forget: int, record: LocalizationRecord, groups: Sequence[int] = ()
) -> Localization:
    """Subtract the retain items' mean scores from the forget items', with intervals over items.

    Of several groups of retain items, each site is contrasted with the one whose mean is largest. Without retain items,
    as in a circuit task, the scores are the forget items' own.

    Args:
        scores: by part `[fact, layer, unit]`, forget facts first.
        falls: `[fact]`, each fact's whole effect; its scores are divided by it. Facts whose effect is less than a
            tenth of the median are left out, because their shares would be noise.
        n_forget: how many of the facts are to be forgotten.
        record: how the scores were made. The localization's record counts the facts that were used.
        groups: the sizes of the groups of retain facts, in their order; by default they are one group.

    Raises:
        UserError: no forget fact, or no retain fact, has an effect.
    """
    used = falls > 0.1 * np.median(np.abs(falls))
    forget = np.flatnonzero(used[:n_forget])
    ends = n_forget + np.cumsum(groups or [len(falls) - n_forget])
    retain = [start + np.flatnonzero(used[start:end]) for start, end in zip([n_forget, *ends], ends, strict=False)]
    retain = [group for group in retain if len(group)]
    if not len(forget) or (len(falls) > n_forget and not retain):
        raise UserError(
            "no answer depends on its subject here, so there is nothing to locate; check the case's templates."
        )
    frames = [
        _table(part, raw / falls[:, None, None].clip(1e-9), raw[forget].mean(0), forget, retain, record.seed)
        for part, raw in scores.items()
    ]
    record = replace(record, n_forget=len(forget), n_retain=sum(map(len, retain)))
    return Localization(pd.concat(frames, ignore_index=True), record)


def _table(
    part: Part, shares: np.ndarray, raw: np.ndarray, forget: np.ndarray, retain: Sequence[np.ndarray], seed: int
) -> pd.DataFrame:
    n_units = raw.shape[1]
    a, *groups = (shares[rows].reshape(len(rows), raw.size) for rows in (forget, *retain))
    b = np.max([group.mean(0) for group in groups], 0) if groups else np.zeros(raw.size)
    score = a.mean(0) - b
    low, high, frequency = _bootstrap(a, groups or [np.zeros((1, raw.size))], seed)
    q = stats.false_discovery_control(_p_values(a, groups))
    layer, index = np.divmod(np.arange(score.size), n_units)
    return pd.DataFrame(
        {
            "layer": layer, "part": part, "index": index, "position": pd.array([None] * score.size, dtype="Int64"),
            "score": score, "low": low, "high": high, "frequency": frequency, "q": q,
            "role": pd.array([None] * score.size, dtype="string"),
            "forget": a.mean(0), "retain": b, "raw": raw.reshape(-1), "general": False,
        }
    )[list(COLUMNS)]  # fmt: skip


def _p_values(a: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """One-sided: that a site's mean exceeds that of every group, or zero without groups. The largest p-value counts."""
    with np.errstate(all="ignore"):
        tests: list[Any] = [stats.ttest_ind(a, b, equal_var=False, alternative="greater") for b in groups]
        tests = tests or [stats.ttest_1samp(a, 0.0, alternative="greater")]
    return np.max([np.nan_to_num(test.pvalue, nan=1.0) for test in tests], 0)


def _bootstrap(a: np.ndarray, groups: Sequence[np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 95% interval of each site's contrast, and how often the site is among the best, over resampled facts."""
    rng = np.random.default_rng(seed)

    def means(values: np.ndarray) -> np.ndarray:
        n = len(values)
        return (rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float32) / n) @ values.astype(
            np.float32
        )

    draws = means(a) - reduce(np.maximum, map(means, groups))
    k = max(1, round(TOP_SHARE * a.shape[1]))
    best = np.partition(draws, -k, axis=1)[:, -k, None]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return low, high, (draws >= best).mean(0)
