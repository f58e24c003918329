"""Over-forgetting is flagged by what is measured, also where nothing is recalled on either side."""

import numpy as np
import pytest
import torch

from loka.knowledge import CaseSpec
from loka.model import Model, encode, logits, scratch, token_logprobs, unfrozen
from loka.verify import Reading, Summary, Verdict, judge, make_reading, recall, scorecard
from loka.verify.judge.over_forgetting import over_forgotten

RNG = np.random.default_rng(0)


def made(check: str, forget: float, twins: float = 0.0, **details: object) -> Reading:
    groups = {"forget": {f"r/{i:02}": forget for i in range(60)}, "twins": {f"r/t{i:02}": twins for i in range(60)}}
    return make_reading(check, groups, "made up", details=details)


def odds(forget: float, twins: float, spread: float = 1.0) -> dict[str, object]:
    """The details of a recall whose items have log-odds around these."""
    groups = {"forget": forget, "twins": twins}
    return {"likelihood": {g: {"log_odds": (m + spread * RNG.normal(size=60)).tolist()} for g, m in groups.items()}}


def judged(before: dict[str, object], after: dict[str, object]) -> Verdict:
    readings = {
        "before": {"recall": made("recall", 1.0, **before), "relearn": made("relearn", 1.0)},
        "after": {"recall": made("recall", 0.0, **after), "relearn": made("relearn", 0.0)},
    }
    return judge(readings, scorecard=scorecard(0.0, 0.95, None), summary=Summary())


@pytest.mark.parametrize("spread", [1.0, 5.0])
def test_log_odds_far_below_never_taught_are_flagged(spread: float) -> None:
    (flag,) = judged(odds(8, -2, spread), odds(-60, -2, spread)).flags
    assert flag.startswith(
        "over_forgotten: the answers are rarer than for subjects that were never taught, by log-odds"
    )
    assert "-6" in flag
    assert "against -2" in flag or "against -1" in flag


@pytest.mark.parametrize(("after", "spread"), [(-2.0, 1.0), (-2.5, 1.0), (-4.0, 8.0), (1.0, 1.0)])
def test_what_is_as_if_never_taught_is_not(after: float, spread: float) -> None:
    """Half a nat of ten is within the bound; two may be chance where items differ by eight."""
    assert not judged(odds(8, -2, spread), odds(after, -2, spread)).flags


def test_means_serve_where_nothing_else_is_stored() -> None:
    before = {"log_odds": 8.0, "log_odds_twins": -2.0}
    assert judged(before, {"log_odds": -60.0, "log_odds_twins": -2.0}).flags
    assert not judged(before, {"log_odds": -2.5, "log_odds_twins": -2.0}).flags
    assert not judged(before, {"log_odds": None, "log_odds_twins": -2.0}).flags


def test_on_the_scale_of_the_attacks() -> None:
    def flags(relearn: float) -> list[str]:
        readings = {
            "before": {"recall": made("recall", 1.0), "relearn": made("relearn", 0.9)},
            "after": {"recall": made("recall", 0.0), "relearn": made("relearn", relearn, 0.3)},
        }
        return judge(readings, scorecard=scorecard(0.0, 0.95, None), summary=Summary()).flags

    assert flags(0.3) == flags(0.27) == []
    assert "by relearn (r = -0.33)" in flags(0.1)[0]


def test_models_of_known_truth(planted: Model, untaught: Model, planted_case: CaseSpec) -> None:
    """A model that never learned the facts is not flagged; one that was pushed away from them is."""
    case = planted_case.on(planted)
    before, never = recall(planted, case), recall(untaught, case)
    with scratch(planted), unfrozen(planted) as weights:
        optimizer = torch.optim.Adam(weights, 1e-3)
        for _ in range(45):
            for items, sign in ((case.forget.working, 1.0), (case.retain.working, -0.3)):
                batch = encode(planted, [i.prompt for i in items], [i.answer for i in items])
                (sign * token_logprobs(logits(planted, batch), batch.labels).sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
        pushed = recall(planted, case)
    assert not over_forgotten({"before": {"recall": before}, "after": {"recall": never}}, {}, 0)
    found = over_forgotten({"before": {"recall": before}, "after": {"recall": pushed}}, {}, 0)
    assert [b.name for b in found] == ["log-odds"]
    assert found[0].target == pytest.approx(pushed.details["log_odds"])  # type: ignore[arg-type]


def test_without_foils_the_loss_serves() -> None:
    def loss(forget: float) -> dict[str, object]:
        groups = {"forget": forget, "twins": -2.0}
        return {"likelihood": {g: {"log_odds": [], "log_probability": [m] * 60} for g, m in groups.items()}}

    (flag,) = judged(loss(-0.1), loss(-20.0)).flags
    assert "log-probability of an answer's token (r = -9.47, -20.0 against -2.0 nats)" in flag
    assert not judged(loss(-0.1), loss(-2.1)).flags
