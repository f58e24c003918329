"""An audit runs, prices, judges and reports a check and a control that only this file defines."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loka import Edit, UserError, ablate, audit, report
from loka.audit import CONTROLS, Audited, Control, FolderStore, Plan, Store, estimate
from loka.audit.cost import MAKING
from loka.knowledge import Case
from loka.model import Model, Site
from loka.verify import CHECKS, Budget, Check, Reading, Setting, capped, recall, recall_by_unit
from loka.verify.checks import by_role
from loka.verify.reading import make_reading

LAST = [Site(3, part) for part in ("attn", "mlp")]
CHEAP = [c for c in CHECKS if c.name in ("recall", "collateral", "membership")]
RELEARN = [c for c in capped({"relearn": Budget(2, 1e-3)}) if c.name == "relearn"]


def shout(model: Model, case: Case, setting: Setting) -> Reading:
    """How often working prompts are answered; needs the original and its reading of the same check."""
    assert setting.original is not model
    samples = {
        "forget": recall_by_unit(model, case.forget.working),
        "twins": recall_by_unit(model, case.twins.working or case.twins.sealed),
    }
    share = 0.0 if setting.original_reading is None else setting.original_reading.value
    return make_reading("shout", samples, "Asked loudly, the model answers.", details={"original": share}, cost=7.0)


MINE = Check("shout", shout, lambda model, case, setting: 7.0, "attack", frozenset({"original", "original_reading"}))


def halved(audited: Audited, progress: Callable[[int, int], None]) -> Edit | None:
    """A control that every edit allows: itself at half its strength."""
    return audited.after.scaled(audited.before, 0.5) if isinstance(audited.after, Edit) else None


HALF = Control("half", "half the strength", halved, lambda audited: 3.0, ("recall", "shout"))


@pytest.fixture(scope="module")
def edit(taught: Model, planted_case: Case) -> Edit:
    return ablate.tune(taught, planted_case, LAST, ablate.TrainingConfig(steps=10, lr=3e-3))


def test_a_new_check_and_a_new_control_are_rows_and_nothing_else(
    planted: Model, planted_case: Case, edit: Edit, tmp_path: Path
) -> None:
    checks, controls = [*CHEAP, *RELEARN, MINE], [*CONTROLS, HALF]
    priced = {
        (e.model, e.check): e.cost for e in estimate(planted, edit, planted_case, checks=checks, controls=controls)
    }
    assert priced["half", MAKING] == 3
    assert {m for m, c in priced if c == "shout"} == {"before", "after", "half"}
    assert priced["after", "shout"] == 7

    store = FolderStore(tmp_path, planted, edit, planted_case.on(planted))
    verdict = audit(planted, edit, planted_case, store=store, checks=checks, controls=controls)
    assert {(m, c) for m, found in store.readings.items() for c in found} | {(n, MAKING) for n in store.edits} == set(
        priced
    )
    assert (tmp_path / "controls" / "half.safetensors").exists()
    assert set(FolderStore(tmp_path, planted, edit, planted_case.on(planted)).edits) == {"shallow", "half"}
    original = store.readings["before"]["shout"]
    assert original.details["original"] == 0
    assert store.readings["after"]["shout"].details["original"] == original.value
    assert "shout" in verdict.recoveries
    assert verdict.reasons[0].split(";")[0].endswith("recoverable by relearn or shout")
    assert not any(r.startswith("Not tried") for r in verdict.reasons), "the table is the one that was given"

    (tmp_path / "verdict.json").write_text(json.dumps(verdict.to_json({})))
    page = report.write(tmp_path, checks=checks, controls=controls).read_text(encoding="utf-8")
    assert "Asked loudly, the model answers." in page
    assert '<th scope="col" class="n">half the strength</th>' in page
    assert page.index("shallow sibling</th>") < page.index("half the strength</th>"), "in the order of the table"
    with pytest.raises(UserError, match="readings of 'half', which is none of before, after, random, shallow"):
        report.write(tmp_path, checks=checks)
    with pytest.raises(UserError, match="'shout' is not a check; choose one of recall"):
        report.write(tmp_path, controls=controls)


def test_names_that_no_table_has_are_errors(planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match="'huge' is not a profile; choose one of quick, standard, full"):
        Plan.of("huge")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'shout' is not a check; choose one of recall"):
        Plan.of("quick", controls=[*CONTROLS, HALF])
    with pytest.raises(UserError, match="'twin' is not a need of a check; choose one of twins"):
        dataclasses.replace(MINE, needs=frozenset({"twin"}))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'judges' is not a role of a check"):
        dataclasses.replace(MINE, role="judges")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'shout' is not a check"):
        capped({"shout": Budget()})
    with pytest.raises(UserError, match="'recall' does not train, so it has no cap; choose among relearn"):
        capped({"recall": Budget()})
    with pytest.raises(UserError, match="table of checks are named 'recall'"):
        Plan.of("quick", checks=[*CHECKS, CHECKS[0]])
    with pytest.raises(UserError, match="table of controls are named 'after'"):
        Plan.of("quick", controls=[*CONTROLS, dataclasses.replace(CONTROLS[0], name="after")])
    with pytest.raises(UserError, match="0 controls find the budgets"):
        Plan.of("quick", controls=CONTROLS[:1])
    with pytest.raises(UserError, match="lacks 'recall'"):
        audit(planted, planted, planted_case, checks=RELEARN)


def test_a_check_without_what_it_needs_is_refused(planted: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)
    alone = dataclasses.replace(known, twins=dataclasses.replace(known.twins, working=(), sealed=()))
    assert {c.name for c in CHECKS if c.obstacle(alone)} == {
        "prefill", "relearn", "benign", "quantize", "direction_ablation", "spectral", "mask", "relearn_lora",
        "relearn_sgd", "relearn_retain", "relearn_mixed", "logit_lens", "depth", "soft_prompt",
    }  # fmt: skip
    assert not [c.name for c in CHECKS if c.obstacle(known)]


def test_a_check_that_does_not_apply_is_left_out_without_a_word(planted: Model, planted_case: Case, edit: Edit) -> None:
    elsewhere = dataclasses.replace(MINE, applies=lambda case: case.name != "planted")
    tables = [[*CHEAP, *RELEARN, *more] for more in ([], [elsewhere])]
    stores, verdicts = [Store(), Store()], []
    for store, checks in zip(stores, tables, strict=True):
        verdicts.append(audit(planted, edit, planted_case, store=store, checks=checks))
        stores[1].edits |= store.edits
    one, other = (estimate(planted, edit, planted_case, checks=checks) for checks in tables)
    assert one == other
    assert "shout" not in stores[1].readings["after"]
    assert verdicts[0].to_json({}) == verdicts[1].to_json({})
    assert "shout" in {e.check for e in estimate(planted, edit, planted_case, checks=[*CHEAP, *RELEARN, MINE])}


def test_a_case_of_facts_is_not_from_a_benchmark(planted: Model, planted_case: Case, edit: Edit) -> None:
    known = planted_case.on(planted)
    assert [c.name for c in CHECKS if not c.applies(known)] == ["downstream", "benchmark"]
    assert "benchmark" not in {e.check for e in estimate(planted, edit, known, profile="full")}


def test_the_table_has_the_order_of_the_verdict_and_each_profile_adds_checks() -> None:
    names = {role: [c.name for c in by_role(role)] for role in ("attack", "inside", "corroborates")}
    assert names["attack"] == [
        "paraphrase", "prefill", "relearn", "benign", "quantize", "direction_ablation", "spectral", "mask",
        "relearn_lora", "relearn_sgd", "relearn_retain", "relearn_mixed",
    ]  # fmt: skip
    assert names["inside"] == ["probe", "logit_lens", "depth", "similarity"]
    assert names["corroborates"] == ["extraction", "soft_prompt"]
    quick, standard, full = ({c.name for c in Plan.of(p).checks} for p in ("quick", "standard", "full"))  # type: ignore[arg-type]
    assert quick == {"recall", "paraphrase", "relearn", "probe", "membership", "collateral", "downstream", "benchmark"}
    assert quick < standard < full == {c.name for c in CHECKS}
    assert standard == full - {"relearn_lora", "relearn_sgd", "relearn_retain", "relearn_mixed"}


def test_a_row_runs_the_function_of_its_name(planted: Model, planted_case: Case) -> None:
    row = next(c for c in CHECKS if c.name == "recall")
    assert row.run(planted, planted_case, Setting()) == recall(planted, planted_case)
