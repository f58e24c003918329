"""The estimated cost of each check is the cost that the audit then counts."""

import json
import sys
from pathlib import Path

import pytest

from loka import ablate, audit
from loka.audit.cost import MAKING, estimate, seconds_a_row
from loka.audit.store import FolderStore
from loka.cli import main
from loka.knowledge import Case
from loka.model import Model, Site, export
from loka.verify import Budget, by_role, capped

LAST = [Site(3, part) for part in ("attn", "mlp")]


@pytest.fixture(autouse=True)
def stronger(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(4, 1e-3)
    monkeypatch.setattr(sys.modules["loka.audit.plan"], "CHECKS", capped({"relearn": budget, "benign": budget}))


@pytest.fixture(scope="module")
def edit(taught: Model, small_case: Case):
    return ablate.tune(taught, small_case, LAST, ablate.TrainingConfig(steps=10, lr=3e-3))


class Killed(BaseException):
    pass


def test_the_standard_profile_resumes_check_by_check_and_costs_what_was_promised(
    planted: Model, edit, planted_case: Case, tmp_path: Path
) -> None:
    """Only paraphrase may cost less than estimated: it drops forms that the original does not answer."""

    def kill(what: str, done: int, total: int) -> None:
        if what == "direction_ablation on after":
            raise Killed

    def store() -> FolderStore:
        return FolderStore(tmp_path, planted, edit, planted_case.on(planted))

    listed = estimate(planted, edit, planted_case, profile="standard")
    with pytest.raises(Killed):
        audit(planted, edit, planted_case, profile="standard", store=store(), progress=kill)
    assert "quantize" in store().readings["after"]
    seen: list[str] = []
    verdict = audit(
        planted, edit, planted_case, profile="standard", store=store(), progress=lambda w, *_: seen.append(w)
    )
    assert "quantize on after" not in seen
    assert "direction_ablation on after" in seen
    others = ("relearn_lora", "relearn_sgd", "relearn_retain", "relearn_mixed")
    assert {c.name for c in by_role("attack")} - set(others) < set(verdict.readings["after"])
    assert f"Not tried in this profile: {', '.join(others)}." in verdict.reasons

    promised = {(e.model, e.check): e.cost for e in listed}
    for model, readings in store().readings.items():
        for check, reading in readings.items():
            cost = promised.pop((model, check))
            assert cost == pytest.approx(reading.cost) or (check == "paraphrase" and cost > reading.cost), (
                model,
                check,
            )
    assert set(promised) == {("shallow", MAKING)}


def test_larger_profiles_cost_more(planted: Model, edit, small_case: Case) -> None:
    quick, standard, full = (
        sum(e.cost for e in estimate(planted, edit, small_case, profile=p))
        for p in ("quick", "standard", "full")  # type: ignore[arg-type]
    )
    assert quick < standard < full
    assert 0 < seconds_a_row(planted, small_case) < 1


def loka(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["loka", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_verify_lists_costs_then_audits_two_folders_and_resumes(
    planted: Model, edit, small_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    export(planted, tmp_path / "original")
    export(planted, tmp_path / "edited", edit=edit)
    out = tmp_path / "out"
    command = ["verify", small_case.path, "--before", tmp_path / "original", "--after", tmp_path / "edited",
               "--out", out, "--profile", "standard"]  # fmt: skip
    assert loka(monkeypatch, *command, "--list") == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("soft_prompt", "benign", "relearn", "total left to run"))
    assert not out.exists(), "listing starts nothing"
    assert loka(monkeypatch, *command) == 0
    first = (out / "verdict.json").read_bytes()
    found = json.loads(first)
    assert {"benign", "quantize", "direction_ablation"} < set(found["readings"])
    assert {"logit_lens", "depth"} <= set(found["recoveries"])
    assert (out / "report.html").stat().st_size > 0
    (out / "verdict.json").unlink()
    assert loka(monkeypatch, *command) == 0
    assert (out / "verdict.json").read_bytes() == first
    capsys.readouterr()
    assert loka(monkeypatch, *command, "--list") == 0
    assert "done" in capsys.readouterr().out
