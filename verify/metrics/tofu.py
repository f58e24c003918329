"""The two numbers of TOFU: forget quality and model utility.

Maini et al. 2024, arXiv:2401.06121, section 3. The scorecard's label `forget_quality` is something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ..._util.errors import UserError
from .conventions import OPEN_UNLEARNING, STATED, TOFU, check_convention
from .truth_ratio import EPSILON, option_probability, truth_ratio

Log = Mapping[str, Sequence]
SETS = {
    "Real Authors": "eval_real_author_wo_options.json",
    "Real World": "eval_real_world_wo_options.json",
    "Retain": "eval_log.json",
    "Forget": "eval_log_forget.json",
}
AMONG_OPTIONS = ("Real Authors", "Real World")


@dataclass(frozen=True)
class ForgetQuality:
    """A two-sample, two-sided Kolmogorov-Smirnov test: its p-value, and the largest distance (0 to 1)."""

    p: float
    distance: float


@dataclass(frozen=True)
class TofuReport:
    """TOFU's table.

    `values`: twelve numbers from 0 to 1 under TOFU's names (`Prob. Retain`, `ROUGE Forget`, ...). `model_utility`: the
    harmonic mean of the nine that are not about the forget set. `forget_quality`: `None` without a retain model.
    """

    values: dict[str, float]
    model_utility: float
    forget_quality: ForgetQuality | None


def tofu_forget_quality(
    unlearned: Sequence[float], retain: Sequence[float], *, convention: str = STATED
) -> ForgetQuality:
    """Test if truth ratios look like those of a model that never saw the forget set; a high p-value means they do.

    Args:
        unlearned, retain: truth ratios by question, `[n]` and `[m]`, of the unlearned and of the retain-only model.
            The test uses ranks alone, so it is the same for ratios and their inverses.
        convention: `open-unlearning` compares `1 / (ratio + 1e-10)`, which can make or break ties.

    Raises:
        UserError: an unknown convention, or an empty side.
    """
    check_convention(convention, OPEN_UNLEARNING)
    a, b = (np.asarray(side, dtype=float) for side in (unlearned, retain))
    if not (len(a) and len(b)):
        raise UserError(f"There are {len(a)} truth ratios to compare with {len(b)}; give at least one on each side.")
    if convention == OPEN_UNLEARNING:
        a, b = 1 / (a + EPSILON), 1 / (b + EPSILON)
    found: Any = stats.ks_2samp(a, b)
    return ForgetQuality(float(found.pvalue), float(found.statistic))


def tofu_model_utility(values: Sequence[float]) -> float:
    """The harmonic mean of utility metrics (TOFU has nine), each from 0 to 1; one zero makes it zero.

    Raises:
        UserError: no values, or one below zero.
    """
    if len(values) == 0 or min(values) < 0:
        raise UserError(f"A harmonic mean needs at least one number, and none below zero; these are {list(values)}.")
    return float(stats.hmean(values)) if min(values) > 0 else 0.0


def tofu_report(
    logs: Mapping[str, Log], retain_logs: Mapping[str, Log] | None = None, *, convention: str = STATED
) -> TofuReport:
    """Compute TOFU's table from the logs of its evaluation.

    Args:
        logs: by file name (`eval_log_forget.json`, ...), the lists `avg_gt_loss`, `avg_paraphrased_loss` and
            `rougeL_recall` `[question]`, and `average_perturb_loss` `[question][answer]`; losses in nats per token.
        retain_logs: the forget set's log of a model trained without it, for the forget quality.
        convention: `tofu` averages the wrong answers' losses (a geometric mean), as TOFU's code does; `stated` averages
            their probabilities, as the paper says.

    Raises:
        UserError: an unknown convention, or a log that lacks a file.
    """
    check_convention(convention, TOFU)
    if missing := [file for file in SETS.values() if file not in logs]:
        raise UserError(f"The logs lack {', '.join(missing)}; they need {', '.join(SETS.values())}.")
    values: dict[str, float] = {}
    for name, file in SETS.items():
        aggregate = "closer_to_1" if name == "Forget" else "true_better"
        values[f"ROUGE {name}"] = float(np.mean(logs[file]["rougeL_recall"]))
        values[f"Prob. {name}"] = _probability(logs[file], among_options=name in AMONG_OPTIONS)
        ratio = truth_ratio(*_losses(logs[file]), aggregate=aggregate, convention=convention)
        values[f"Truth Ratio {name}"] = ratio.value
    utility = tofu_model_utility([v for name, v in values.items() if not name.endswith("Forget")])
    return TofuReport(values, utility, _forget_quality(logs, retain_logs, convention))


def _probability(log: Log, *, among_options: bool) -> float:
    if among_options:
        return option_probability(log["avg_gt_loss"], log["average_perturb_loss"]).value
    return float(np.exp(-np.asarray(log["avg_gt_loss"], dtype=float)).mean())


def _losses(log: Log) -> tuple[Sequence[float], Sequence[Sequence[float]]]:
    return log["avg_paraphrased_loss"], log["average_perturb_loss"]


def _forget_quality(
    logs: Mapping[str, Log], retain_logs: Mapping[str, Log] | None, convention: str
) -> ForgetQuality | None:
    file = SETS["Forget"]
    if retain_logs is None:
        return None
    if file not in retain_logs:
        raise UserError(f"The retain model's logs lack {file}; add it.")
    ours, theirs = (truth_ratio(*_losses(side[file]), convention=convention).scores for side in (logs, retain_logs))
    return tofu_forget_quality(list(ours), list(theirs))
