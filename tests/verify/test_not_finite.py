"""A number that is not finite never passes a gate and never convicts; what was not finite is named."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from loka import audit, verify
from loka._util.errors import NotFiniteError
from loka._util.files import write_json
from loka.audit import FolderStore
from loka.audit.store import read_readings
from loka.knowledge import CaseSpec, known, recalled
from loka.model import Model, wrap
from loka.verify import Budget, Reading, Summary, capped, judge, make_reading, scorecard
from loka.verify.judge.statistics import cross_fitted, holm, recovery

NAN, INF = float("nan"), float("inf")
GOOD = {
    "retain_same_before": 0.9, "retain_same_after": 0.89, "perplexity_before": 20.0, "perplexity_after": 20.1,
    "shallow_r": 0.7, "forget_before": 0.9, "shallow_forget_after": 0.1,
}  # fmt: skip
CAP = Budget(2, 1e-3)
CHECKS = capped({check.name: CAP for check in verify.CHECKS if check.trains})


def made(check: str, forget: float, twins: float = 0.0, **details: object) -> Reading:
    groups = {"forget": {f"r/{i:02}": forget for i in range(60)}, "twins": {f"r/t{i:02}": twins for i in range(60)}}
    return make_reading(check, groups, "made up", details=details)


def judged(after: Reading, on: str = "after", **summary: object) -> verify.Verdict:
    """The verdict on a model that is removed but for one reading."""
    before = {c: made(c, 1.0) for c in ("recall", *(check.name for check in CHECKS if check.required))}
    readings = {"before": before, "after": {c: made(c, 0.0) for c in before}}
    readings.setdefault(on, {})[after.check] = after
    return judge(readings, scorecard=scorecard(0.0, 0.95, None), summary=Summary(**{**GOOD, **summary}))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("check", ["recall", "relearn", "quantize"])
@pytest.mark.parametrize("group", ["forget", "twins"])
@pytest.mark.parametrize("model", ["before", "after", "shallow"])
def test_a_number_that_is_not_finite_decides_nothing(value: float, check: str, group: str, model: str) -> None:
    assert judged(made("quantize", 0.0)).outcome == "removed", "without it there is a verdict"
    assert judged(made("quantize", 0.5)).outcome == "suppressed"
    verdict = judged(made(check, **{"forget": 0.0, "twins": 0.0, group: value}), model)
    assert verdict.outcome == "inconclusive"
    assert "every number is finite" in verdict.claim
    assert f"{check} on {model} ({group} is {value} for 60 units)" in "\n".join(verdict.reasons)
    json.dumps(verdict.to_json({}), allow_nan=False)


def test_one_number_of_sixty_is_enough() -> None:
    reading = make_reading("relearn", {"forget": {"r/a": NAN, "r/b": 0.5}, "twins": {"r/t": 0.0}}, "made up")
    assert reading.value is reading.ci is None
    assert reading.samples == {"forget": {"r/b": 0.5}, "twins": {"r/t": 0.0}}
    assert reading.not_finite == ("forget is nan for 1 unit",)


def test_details_and_the_summary_count_too() -> None:
    reading = made("quantize", 0.0, by_bits={"4": {"forget": INF, "twins": 0.0}})
    assert reading.value == 0.0
    assert reading.details == {"by_bits": {"4": {"forget": None, "twins": 0.0}}}
    assert "quantize on after (by_bits 4 forget is inf)" in str(judged(reading))
    verdict = judged(made("quantize", 0.0), relearn_r=NAN)
    assert verdict.outcome == "inconclusive"
    assert "relearn_r is nan" in str(verdict)


def test_a_reading_stays_what_it_is_in_a_file(tmp_path: Path) -> None:
    reading = made("quantize", NAN, lr=INF)
    write_json(tmp_path / "readings.json", {"after": {"quantize": reading.to_json()}})
    assert read_readings(tmp_path / "readings.json") == {"after": {"quantize": reading}}


def test_statistics_of_what_is_not_finite() -> None:
    ones, zeros, bad = np.ones(40), np.zeros(40), np.full(40, NAN)
    assert recovery(bad, ones, zeros, delta=0.1) is None
    assert recovery(ones, bad, zeros, delta=0.1) is None
    assert recovery(ones, ones, bad, delta=0.1) is None
    assert holm([NAN, 0.01]) == [1.0, 0.02]
    diverged = np.array([[0.4, NAN], [0.5, NAN]])  # the second learning rate
    assert cross_fitted(diverged, np.zeros((0, 2))).forget.tolist() == [0.4, 0.5]


def test_what_was_not_measured_earns_no_grade() -> None:
    assert scorecard(None, 0.95, None).forget_quality is None
    assert scorecard(0.0, None, None).forget_quality is None
    assert "retain accuracy not measured" in str(scorecard(0.0, None, None))


@pytest.fixture
def broken(taught: Model) -> Model:
    """The small model with one weight that is NaN, which makes all of its logits NaN."""
    model = wrap(copy.deepcopy(taught.hf), taught.tokenizer, "broken")
    with torch.no_grad():  # after loading, which would refuse it
        model.parameters["model.layers.1.mlp.down_proj.weight"][0, 0] = NAN
    return model


def test_a_model_of_nan_knows_nothing_and_says_so(broken: Model, planted_case: CaseSpec) -> None:
    items = planted_case.whole().forget.sealed
    assert not any(recalled(broken, items))
    assert not any(known(broken, items))
    with pytest.raises(NotFiniteError, match="broken gives numbers that are not finite for 64 of 64 prompts"):
        planted_case.on(broken)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_of_a_model_of_nan_says_so(
    check: verify.Check, broken: Model, planted: Model, planted_case: CaseSpec
) -> None:
    case = planted_case.on(planted)
    if not check.applies(case):
        return
    setting = verify.Setting(original=planted, budget=CAP)
    if check.name in ("recall", "probe", "extraction", "membership"):
        with pytest.raises(NotFiniteError, match="of broken"):
            check.run(broken, case, setting)
        return
    found = check.run(broken, case, setting)
    if check.name == "prefill":  # no answer of this case has a rest to ask for
        assert found.value is None
        return
    assert found.not_finite
    if check.name != "logit_lens":  # which reads a layer before the one that is broken
        assert found.value is None
        assert "nan" in found.meaning


def test_an_audit_of_a_model_of_nan_is_inconclusive(
    broken: Model, planted: Model, small_case: CaseSpec, tmp_path: Path
) -> None:
    case = small_case.on(planted)
    store = FolderStore(tmp_path, planted, broken, case)
    verdict = audit(planted, broken, case, checks=CHECKS, store=store)
    assert verdict.outcome == "inconclusive"
    assert "the gate 'every number is finite' failed" in verdict.claim
    assert "relearn on after (forget is nan for 8 units" in str(verdict)
    assert verdict.scorecard.forget_quality is None
    again = audit(planted, broken, case, checks=CHECKS, store=FolderStore(tmp_path, planted, broken, case))
    assert str(again) == str(verdict)
