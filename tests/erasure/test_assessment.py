"""What is kept of an assessment and of the exclusion list when a process is killed, and when a request expires."""

import dataclasses
from datetime import date
from pathlib import Path

import pytest

from loka._util.errors import UserError
from loka.erasure import Register, assessment, held_back, steps, upkeep
from loka.erasure.change import Change
from loka.erasure.material import Material

from .conftest import TODAY


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_killed_assessment_is_never_taken_for_the_one_before(
    register: Register, assessed: str, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = assessment.impact_of(register, assessed)
    assert before.found().records == 16
    with monkeypatch.context() as patch:
        patch.setattr(Change, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            assessment.confirm(register, assessed, {1: False})
    with pytest.raises(UserError, match=f"give `loka erase assess {assessed} --data ...` again"):
        assessment.impact_of(register, assessed)
    assert assessment.assess(register, assessed, material.data) == before
    assert assessment.impact_of(register, assessed) == before


def test_a_killed_addition_leaves_the_list_as_it_was(
    register: Register, assessed: str, material: Material, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert held_back.add_to_exclusions(register, assessed, material.data) == 16
    before = held_back.exclusions(register)
    with monkeypatch.context() as patch:
        patch.setattr(Change, "log", killed)
        other = dataclasses.replace(before.entries[0], records=())
        patch.setattr(held_back, "_with_earlier", lambda now, _: dataclasses.replace(now, entries=(other,)))
        with pytest.raises(KeyboardInterrupt):
            held_back.add_to_exclusions(register, assessed, material.data)
    assert len(list((register.folder / "exclusions").iterdir())) == 2
    assert held_back.exclusions(register) == before
    held_back.add_to_exclusions(register, assessed, material.data)
    assert len(list((register.folder / "exclusions").iterdir())) == 1
    assert held_back.exclusions(register) == before


def test_assessing_again_leaves_a_chosen_method_alone(register: Register, assessed: str, material: Material) -> None:
    with register.change() as change:
        change.save(dataclasses.replace(register.request(assessed), status="chosen", method="located"), "assessed", {})
    assessment.assess(register, assessed, material.data)
    assert (register.request(assessed).status, register.request(assessed).method) == ("chosen", "located")


def test_expiring_deletes_the_impact_but_not_the_exclusion_list(
    register: Register, assessed: str, material: Material
) -> None:
    held_back.add_to_exclusions(register, assessed, material.data)
    steps.close(register, assessed, "done", today=TODAY)
    with pytest.raises(UserError, match="is closed and cannot be assessed any more"):
        assessment.assess(register, assessed, material.data)
    assert assessment.path_of(register, assessed).exists()
    assert upkeep.expire(register, 1, today=date(2026, 12, 1)) == [assessed]
    assert not assessment.files_of(register, assessed).exists()
    assert len(held_back.exclusions(register).entries) == 1
    assert register.verify() is None
