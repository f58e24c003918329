"""The second sibling, by npo: made where relearning cannot expose the first, and what follows from it."""

import pytest
import torch

from loka import ablate, audit
from loka.ablate.common import edit_record
from loka.audit import CONTROLS, Store
from loka.knowledge import Case, CaseSpec
from loka.model import Edit, Model, Site, Slice
from loka.model.edit.edit import capture
from loka.verify import Budget, Verdict, capped

LAST = [Site(3, part) for part in ("attn", "mlp")]
STRONG, POWERLESS = Budget(8, 1e-3), Budget(1, 1e-9)
SIBLINGS = [c for c in CONTROLS if c.name != "random"]


def never_taught(planted: Model, untaught: Model, case: Case, objective: str) -> Edit:
    """The edit to the model that never learned the facts, as if made by an objective: no attack brings them back."""
    whole = [Slice(name, 0, torch.arange(len(weight))) for name, weight in planted.parameters.items()]
    config = ablate.TrainingConfig(objective).to_json()
    record = edit_record("tune", planted, case, LAST, {"config": config})
    return capture(untaught, whole, planted.digest(), record)


def audited(
    planted: Model, untaught: Model, case: Case, *, objective: str = "undial", budget: Budget = STRONG,
    strength: float = 1.0,
) -> tuple[Verdict, Store]:  # fmt: skip
    """Audit a model that knows nothing; its first sibling is the same at some strength."""
    edit, store = never_taught(planted, untaught, case, objective), Store()
    store.edits["shallow"] = edit.scaled(planted, strength)
    checks = [c for c in capped({"relearn": budget}) if c.name in ("recall", "relearn", "collateral")]
    return audit(planted, edit, case, store=store, checks=checks, controls=SIBLINGS), store


def test_a_sibling_that_nothing_exposes_gets_a_second_one(
    planted: Model, untaught: Model, planted_case: CaseSpec
) -> None:
    verdict, store = audited(planted, untaught, planted_case.on(planted))
    assert verdict.summary.shallow_r is not None
    assert verdict.summary.shallow_r < 0.2, "the first sibling knows nothing"
    assert store.edits["shallow_npo"].record.config["objective"] == "npo"
    asked = store.readings["shallow_npo"]["recall"].value
    assert asked is not None
    assert asked <= 0.05, "the second hides as well as the audited edit"
    assert "the attack works, but not on what this objective hides" in verdict.reasons[-1]
    assert verdict.outcome == "inconclusive"


def test_an_attack_that_exposes_neither_is_called_too_weak(
    planted: Model, untaught: Model, planted_case: CaseSpec
) -> None:
    verdict, _ = audited(planted, untaught, planted_case.on(planted), budget=POWERLESS)
    assert "the attack is too weak for this model" in verdict.reasons[-1]
    assert verdict.outcome == "inconclusive"


@pytest.mark.parametrize(("objective", "strength"), [("npo", 1.0), ("undial", 0.01)], ids=["npo itself", "exposed"])
def test_no_second_one_is_made(
    planted: Model, untaught: Model, planted_case: CaseSpec, objective: str, strength: float
) -> None:
    """An edit by npo has that sibling already; a first one that relearning exposes is enough."""
    verdict, store = audited(planted, untaught, planted_case.on(planted), objective=objective, strength=strength)
    assert "shallow_npo" not in store.edits
    assert (verdict.summary.shallow_r or 0.0) == pytest.approx(1 - strength, abs=0.2)
    assert not any("sibling that hides by npo" in reason for reason in verdict.reasons)
