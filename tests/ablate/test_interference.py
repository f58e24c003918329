"""An earlier erasure is asked again under a later one."""

import dataclasses

import pytest

from loka import ablate
from loka.ablate import TrainingConfig
from loka.knowledge import Case, Split
from loka.model import Edit, EditRecord, Model, Site, capture, scratch, slices


def halves(case: Case) -> tuple[Case, Case]:
    facts = case.forget.working
    return tuple(
        dataclasses.replace(case, name=name, forget=Split(part, part))
        for name, part in (("first", facts[:8]), ("second", facts[8:]))
    )


def erased(model: Model, case: Case) -> Edit:
    return ablate.tune(model, case, None, TrainingConfig(objective="ascent", steps=25, lr=2e-3, retain_weight=5.0))


@pytest.mark.parametrize("undone", [False, True])
def test_a_later_edit_that_brings_facts_back_is_found_out(undone: bool, planted: Model, planted_case: Case) -> None:
    first, second = halves(planted_case.on(planted))
    edit = erased(planted, first)
    where = slices(planted, [Site(i, p) for i in range(4) for p in ("attn", "mlp")])
    original = [w.read(planted.parameters[w.name]) for w in where]
    with edit.applied(planted):
        later, made_for = erased(planted, second), planted.digest()
        if undone:
            with scratch(planted, where):
                for w, values in zip(where, original, strict=True):
                    w.write_(planted.parameters[w.name], values)
                later = capture(planted, where, made_for, EditRecord())
    one, two = ablate.check_interference(planted, [(first, edit), (second, later)])
    assert (one.case, two.case) == ("first", "second")
    assert one.alone <= 0.3
    assert two.back == ()
    assert two.holds
    if undone:
        assert one.now == 1.0
        assert len(one.back) >= 6
        assert not one.holds
    else:
        assert one.now <= 0.5
        assert two.now <= 0.3
