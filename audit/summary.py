"""The flat numbers of `verdict.json`, and the grades that they earn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..knowledge import Case
from ..model import Edit, Model
from ..verify import Reading, Scorecard, compare, scorecard


def summarise(
    before: Model, after: Edit | Model, case: Case, readings: dict[str, dict[str, Reading]]
) -> dict[str, Any]:
    """The flat numbers of `verdict.json`; what was not measured is `None`.

    Shares are of facts that the original knew, on sealed templates.
    """

    def value(model: str, check: str, *path: str) -> float | None:
        reading = readings.get(model, {}).get(check)
        if reading is None:
            return None
        found: Any = reading.value if not path else getattr(reading, path[0])
        for step in path[1:]:
            found = (found or {}).get(step)
        return found

    def r(model: str) -> float | None:
        found = compare(readings, "relearn", model=model, seed=case.seed)
        return None if found is None else found.r

    own = compare(readings, "relearn", seed=case.seed)
    out: dict[str, Any] = {
        "forget_before": value("before", "recall"), "forget_after": value("after", "recall"),
        "shallow_forget_after": value("shallow", "recall"), "random_forget_after": value("random", "recall"),
    }  # fmt: skip
    for kind in ("same", "other"):
        for model in ("before", "after"):
            out[f"retain_{kind}_{model}"] = value(model, "collateral", "controls", kind)
        out[f"random_retain_{kind}_after"] = value("random", "collateral", "controls", kind)
    for model in ("before", "after"):
        out[f"perplexity_{model}"] = value(model, "collateral", "details", "perplexity")
    out["random_perplexity_after"] = value("random", "collateral", "details", "perplexity")
    out |= {
        "relearn_target": value("after", "relearn"),
        "relearn_twins": value("after", "relearn", "controls", "twins"),
        "relearn_original": value("before", "relearn"),
        "relearn_shallow": value("shallow", "relearn"),
        "relearn_random": value("random", "relearn"),
        "relearn_r": own.r if own else None,
        "relearn_r_low": own.low if own else None,
        "relearn_r_high": own.high if own else None,
        "shallow_r": r("shallow"),
        "random_relearn_r": r("random"),
        "edited_parameters": after.parameters if isinstance(after, Edit) else None,
        "edited_share": after.share(before) if isinstance(after, Edit) else None,
        "facts_known": case.facts_known,
        "facts_total": case.facts_total,
    }
    return out


def graded(numbers: Mapping[str, Any], readings: Mapping[str, Mapping[str, Reading]]) -> Scorecard:
    """Grades by how much is still answered, of what was to go and of what was to stay, and by membership inference."""
    found = readings["after"].get("membership")
    auc = found.details.get("auc", {}).get("loss") if found else None
    forgot, kept = (_ratio(numbers[f"{of}_after"], numbers[f"{of}_before"]) for of in ("forget", "retain_same"))
    return scorecard(forgot, kept, auc)


def _ratio(part: float | None, whole: float | None) -> float:
    return part / whole if part is not None and whole else 0.0
