"""How much more likely the right answer is than wrong ones of the same form.

Maini et al. 2024, TOFU, arXiv:2401.06121, section 2.2. All losses are mean negative log-probabilities in nats per
token (`answer_loss`), so that `exp(-loss)` is a probability normalised by length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from scipy.special import expit, logsumexp

from ..._util.errors import UserError
from .conventions import OPEN_UNLEARNING, STATED, TOFU, check_convention

EPSILON = 1e-10
Aggregate = Literal["closer_to_1", "true_better", "prob_mean"]


@dataclass(frozen=True)
class BenchmarkScore:
    """A benchmark's number: `scores` `[question]`, and the `value` that aggregates them."""

    value: float
    scores: np.ndarray = field(repr=False)


def truth_ratio(
    correct: Sequence[float], wrong: Sequence[Sequence[float]], *, aggregate: Aggregate = "closer_to_1",
    convention: str = STATED,
) -> BenchmarkScore:  # fmt: skip
    """The ratio r of the right answer's probability to the mean probability of the wrong ones, by question.

    Higher means that more is left, so r is one over the ratio in the paper. The aggregates are the paper's:

    - `closer_to_1`: mean of `min(r, 1 / r)`; 1 if the model cannot tell right from wrong (forget set);
    - `true_better`: mean of `max(0, 1 - 1 / r)` (retain sets);
    - `prob_mean`: mean of `r / (1 + r)`, the right answer's share; its scores are these shares, not ratios.

    Args:
        correct: `[question]`, loss of the right (paraphrased) answer.
        wrong: `[question][answer]`, losses of the wrong answers; questions may have different numbers of them.
        aggregate: how the scores become one value.
        convention: `stated` averages the wrong answers' probabilities, as the paper does. `tofu` averages their losses
            (a geometric mean), as TOFU's code does. `open-unlearning` does the same, inverts the ratio, and adds 1e-10
            to denominators.

    Raises:
        UserError: an unknown aggregate or convention, no questions, or different numbers of questions.
    """
    check_convention(convention, TOFU, OPEN_UNLEARNING)
    if aggregate not in get_args(Aggregate):
        raise UserError(f"{aggregate!r} is not an aggregate; choose one of {', '.join(get_args(Aggregate))}.")
    _same_questions(correct, wrong)
    right = -np.asarray(correct, dtype=float)
    mean = _log_mean if convention == STATED else np.mean
    other = np.array([mean(-np.asarray(losses, dtype=float)) for losses in wrong])
    if convention == OPEN_UNLEARNING:
        return _with_epsilon(np.exp(right), np.exp(other), aggregate)
    return _in_logs(right - other, aggregate)


def option_probability(
    correct: Sequence[float], wrong: Sequence[Sequence[float]], *, convention: str = STATED
) -> BenchmarkScore:
    """The right answer's share of the probability of all options, by question, and its mean.

    Args:
        correct: `[question]`, loss of the right answer.
        wrong: `[question][answer]`, losses of the other options.
        convention: `open-unlearning` adds 1e-10 to the denominator.

    Raises:
        UserError: an unknown convention, no questions, or different numbers of questions.
    """
    check_convention(convention, OPEN_UNLEARNING)
    _same_questions(correct, wrong)
    share = [-c - logsumexp([-c, *(-w for w in losses)]) for c, losses in zip(correct, wrong, strict=True)]
    scores = np.exp(share)
    if convention == OPEN_UNLEARNING:
        right = np.exp(-np.asarray(correct, dtype=float))
        scores = right / (right + np.array([np.exp(-np.asarray(losses)).sum() for losses in wrong]) + EPSILON)
    return BenchmarkScore(float(scores.mean()), scores)


def _in_logs(log_ratio: np.ndarray, aggregate: Aggregate) -> BenchmarkScore:
    """Exact for any size of the probabilities, without an epsilon."""
    with np.errstate(over="ignore"):
        ratio = np.exp(log_ratio)
        if aggregate == "prob_mean":
            return BenchmarkScore(float(expit(log_ratio).mean()), expit(log_ratio))
        if aggregate == "true_better":
            return BenchmarkScore(float(np.maximum(0, -np.expm1(-log_ratio)).mean()), ratio)
    return BenchmarkScore(float(np.exp(-np.abs(log_ratio)).mean()), ratio)


def _with_epsilon(right: np.ndarray, other: np.ndarray, aggregate: Aggregate) -> BenchmarkScore:
    if aggregate == "prob_mean":
        share = right / (right + other + EPSILON)
        return BenchmarkScore(float(share.mean()), share)
    ratio = other / (right + EPSILON)
    value = np.maximum(0, 1 - ratio) if aggregate == "true_better" else np.minimum(ratio, 1 / (ratio + EPSILON))
    return BenchmarkScore(float(value.mean()), ratio)


def _log_mean(logp: np.ndarray) -> float:
    return float(logsumexp(logp) - np.log(len(logp)))


def _same_questions(correct: Sequence[float], wrong: Sequence[Sequence[float]]) -> None:
    if len(correct) == 0 or len(correct) != len(wrong) or not all(len(losses) for losses in wrong):
        raise UserError(
            f"There are {len(correct)} right answers, and wrong answers for {len(wrong)} questions; "
            "give at least one question, and for each its right answer and at least one wrong answer."
        )
