"""The flat numbers of `verdict.json`, the grades that they earn, and one column of the table of before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..knowledge import Case
from ..model import Edit, Model
from ..verify import Reading, Scorecard, Summary, compare, scorecard

Readings = Mapping[str, Mapping[str, Reading]]


@dataclass(frozen=True)
class Column:
    """One model's numbers in the table of before and after; `None` stands for what was not measured.

    Shares are of facts that the original knew, on sealed prompts; `relearn` is the probability of held-out answers
    after relearning, and `r` the same on the scale from never taught (0) to intact (1).
    """

    forget: float | None = None
    retain_same: float | None = None
    retain_other: float | None = None
    perplexity: float | None = None
    relearn: float | None = None
    r: float | None = None


def column(readings: Readings, model: str, *, seed: int = 0) -> Column:
    """One model's numbers, from the readings at a common budget."""
    checks = readings.get(model, {})
    collateral = checks.get("collateral")
    found = compare(readings, "relearn", model=model, seed=seed)
    perplexity: Any = collateral.details.get("perplexity") if collateral else None
    return Column(
        forget=_value(checks, "recall"),
        retain_same=collateral.controls.get("same") if collateral else None,
        retain_other=collateral.controls.get("other") if collateral else None,
        perplexity=perplexity,
        relearn=_value(checks, "relearn"),
        r=found.r if found else None,
    )


def columns(summary: Summary, readings: Readings, controls: tuple[str, ...]) -> dict[str, Column]:
    """The columns of original, edited model and controls, by model.

    Numbers that the summary has come from it; those of further controls come from the readings.
    """
    s = summary
    known = {
        "before": Column(
            s.forget_before, s.retain_same_before, s.retain_other_before, s.perplexity_before, s.relearn_original
        ),
        "after": Column(
            s.forget_after, s.retain_same_after, s.retain_other_after, s.perplexity_after, s.relearn_target,
            s.relearn_r,
        ),
        "random": Column(
            s.random_forget_after, s.random_retain_same_after, s.random_retain_other_after, s.random_perplexity_after,
            s.relearn_random, s.random_relearn_r,
        ),
        "shallow": Column(forget=s.shallow_forget_after, relearn=s.relearn_shallow, r=s.shallow_r),
    }  # fmt: skip
    return {name: known.get(name) or column(readings, name) for name in ("before", "after", *controls)}


def summarise(before: Model, after: Edit | Model, case: Case, readings: Readings) -> Summary:
    """The flat numbers of `verdict.json`, from the readings at a common budget."""
    original, edited, random, shallow = (
        column(readings, model, seed=case.seed) for model in ("before", "after", "random", "shallow")
    )
    target = compare(readings, "relearn", seed=case.seed)
    relearned = readings.get("after", {}).get("relearn")
    return Summary(
        forget_before=original.forget,
        forget_after=edited.forget,
        retain_same_before=original.retain_same,
        retain_same_after=edited.retain_same,
        retain_other_before=original.retain_other,
        retain_other_after=edited.retain_other,
        perplexity_before=original.perplexity,
        perplexity_after=edited.perplexity,
        shallow_forget_after=shallow.forget,
        random_forget_after=random.forget,
        random_retain_same_after=random.retain_same,
        random_retain_other_after=random.retain_other,
        random_perplexity_after=random.perplexity,
        relearn_target=edited.relearn,
        relearn_twins=relearned.controls.get("twins") if relearned else None,
        relearn_original=original.relearn,
        relearn_shallow=shallow.relearn,
        relearn_random=random.relearn,
        relearn_r=target.r if target else None,
        relearn_r_low=target.low if target else None,
        relearn_r_high=target.high if target else None,
        shallow_r=shallow.r,
        random_relearn_r=random.r,
        edited_parameters=after.parameters if isinstance(after, Edit) else None,
        edited_share=after.share(before) if isinstance(after, Edit) else None,
        facts_known=case.facts_known,
        facts_total=case.facts_total,
    )


def grades(summary: Summary, readings: Readings) -> Scorecard:
    """Forget accuracy and retain accuracy, as shares of before, and the AUC of membership inference by the loss."""
    found = readings["after"].get("membership")
    aucs: Any = found.details.get("auc", {}) if found else {}
    return scorecard(
        _share(summary.forget_after, summary.forget_before),
        _share(summary.retain_same_after, summary.retain_same_before),
        aucs.get("loss"),
    )


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _value(checks: Mapping[str, Reading], name: str) -> float | None:
    return checks[name].value if name in checks else None
