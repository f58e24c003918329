"""Erasures on top of earlier ones: on which model they are made, and whether the earlier ones hold."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from loka import ablate
from loka._util.errors import UserError
from loka.erasure import Register, assessment, execution, held_back, steps, upkeep, verification
from loka.erasure.earlier import BACK, HOLDS, UNASKED, Earlier
from loka.erasure.erased import Erasure, erasures, executed
from loka.erasure.job import own_case
from loka.erasure.lineage import check_known, edit_path, lineage, until, with_edits
from loka.erasure.material import Material
from loka.erasure.outcome import Execution, finish
from loka.erasure.replay import Restored, replay
from loka.erasure.safeguards import Utility, broken_safeguards
from loka.erasure.shown import Shown, shown_by
from loka.model import Model, export, load
from loka.pipeline.recipe import Recipe

from ..conftest import FACTS
from .conftest import TODAY, Claims, content

COUNTRIES = list(FACTS["capital"])
GOOD = Utility(0.9, 10.0)
FIRST, SECOND, THIRD = "ER-2024-0001", "ER-2024-0002", "ER-2024-0003"
CONFIG = ablate.TrainingConfig(steps=40, lr=3e-3, retain_rows=16, retain_weight=5.0)
RECIPE = Recipe("gentle", sites=200, locator="attribution", config=CONFIG)


@dataclasses.dataclass(frozen=True)
class Chain:
    """A register in which two people were erased from one model, the second on top of the first."""

    folder: Path
    material: Material

    @property
    def register(self) -> Register:
        return Register(self.folder / "register")


@pytest.fixture(scope="module")
def made(taught: Model, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    material = Claims(folder, people=(12, 10, 8)).write()
    with pytest.MonkeyPatch.context() as patch, Register(folder / "register", create=True) as register:
        patch.setenv("LOKA_REDACTION_KEY", str(folder / "redaction.key"))
        for number in (1, 2, 3):
            request_of(register, folder, number)
            assessment.assess(register, f"ER-2024-000{number}", material.data)
        for number in (1, 2):
            id, run = f"ER-2024-000{number}", folder / f"run-{number}"
            assert execution.execute(register, id, taught, material, run, RECIPE).kept
            upkeep.purge(register)
    return Chain(folder, material)


def request_of(register: Register, folder: Path, number: int) -> None:
    person = {"name": "Erika Mustermann", "identifiers": [f"C-{number:04}"]}
    file = folder / f"request-{number}.yaml"
    file.write_text(json.dumps(content(person=person)))
    steps.receive(register, file, today=TODAY)


@pytest.fixture
def chain(made: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """A copy of it, to be changed."""
    for name in ("register", "register-keys"):
        shutil.copytree(made.folder / name, tmp_path / name)
    monkeypatch.setenv("LOKA_REDACTION_KEY", str(made.folder / "redaction.key"))
    return Chain(tmp_path, made.material)


@pytest.fixture
def opened(chain: Chain) -> Iterator[Register]:
    with chain.register as register:
        yield register


def shown(register: Register, model: Model, id: str, material: Material) -> Shown:
    return shown_by(model, own_case(register, [id], id, material, Earlier.of(register, (), material)))


def test_a_later_edit_is_made_on_top_of_the_earlier_one(opened: Register, chain: Chain, planted: Model) -> None:
    first, second = executed(opened, FIRST), executed(opened, SECOND)
    assert (first.model, first.result) == (planted.digest(), second.model)
    said = opened.payloads(SECOND, kind="executed")[0]
    assert said["earlier"][FIRST]["outcome"] == HOLDS
    both = with_edits(opened, planted, [first, second])
    assert both.digest() == second.result
    for id in (FIRST, SECOND):
        assert shown(opened, planted, id, chain.material).person["recall"] >= 0.8
        assert shown(opened, both, id, chain.material).person["recall"] <= 0.4
    assert shown(opened, both, THIRD, chain.material).person["recall"] >= 0.8
    assert opened.verify() is None


def test_the_records_of_earlier_erasures_are_never_rehearsed(opened: Register, chain: Chain) -> None:
    earlier = Earlier.of(opened, lineage(opened, executed(opened, SECOND).result).present, chain.material)
    assert {id: len(of) for id, of in earlier.records.items()} == {FIRST: 12, SECOND: 10}
    with_, without = (
        {p.subject for p in own_case(opened, [THIRD], THIRD, chain.material, each).records["retain_passage"]}
        for each in (Earlier((), {}, ()), earlier)
    )
    assert with_ == {*COUNTRIES[:22], *COUNTRIES[30:]}
    assert without == set(COUNTRIES[30:])


def test_an_erasure_that_came_back_is_found_and_one_that_holds_is_not_accused(
    opened: Register, chain: Chain, planted: Model
) -> None:
    second = executed(opened, SECOND)
    earlier = Earlier.of(opened, lineage(opened, second.result).present, chain.material)
    both = until(opened, planted, second.result)
    assert both is not None
    assert [each.outcome for each in earlier.ask(opened, both)] == [HOLDS, HOLDS]
    back = earlier.ask(opened, planted)  # on the original, all is there again
    assert [(each.request, each.outcome, each.records) for each in back] == [(FIRST, BACK, 12), (SECOND, BACK, 10)]
    assert min(max(each.regained.values()) for each in back) >= 0.9
    assert broken_safeguards(GOOD, GOOD, earlier.ask(opened, both)) == []
    (broken,) = broken_safeguards(GOOD, GOOD, back[:1])
    assert broken.startswith(f"THE ERASURE OF {FIRST} CAME BACK: the model shows 100% of what it took away")


def test_the_records_are_found_by_the_exclusion_list_in_other_files(
    opened: Register, chain: Chain, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in chain.material.data[0].read_text().splitlines()]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(dict(reversed(row.items()))) + "\n" for row in reversed(rows)))
    elsewhere = dataclasses.replace(chain.material, data=(other,))
    erased = lineage(opened, executed(opened, FIRST).result).present
    unasked = Earlier.of(opened, erased, elsewhere).ask(opened, None)  # type: ignore[arg-type]
    assert [each.outcome for each in unasked] == [UNASKED]
    assert "its records are not in the data given; name their files by --earlier" in unasked[0].words
    found = Earlier.of(opened, erased, dataclasses.replace(elsewhere, earlier=chain.material.data))
    assert {p.subject for p in found.records[FIRST]} == set(COUNTRIES[:12])


def test_digests_of_confirmed_records_find_them_after_the_purge(
    register: Register, tmp_path: Path, write, today
) -> None:
    material = Claims(tmp_path, people=(12,)).write()
    request = steps.receive(register, write(person={"name": "Erika M", "identifiers": ["C-0001"]}), today=today)
    assessment.assess(register, request.id, material.data)
    held_back.add_to_exclusions(register, request.id, material.data)
    steps.close(register, request.id, "done")
    (tmp_path / "shorter.jsonl").write_text("".join(material.data[0].read_text().splitlines(keepends=True)[5:]))
    erased = [Erasure((request.id,), "a", "b")]
    found = Earlier.of(register, erased, dataclasses.replace(material, data=(tmp_path / "shorter.jsonl",)))
    assert {p.subject for p in found.records[request.id]} == set(COUNTRIES[5:12])


def test_a_model_that_lacks_earlier_erasures_is_refused_by_digest(
    opened: Register, chain: Chain, planted: Model, fresh: Model, tmp_path: Path
) -> None:
    next(iter(fresh.parameters.values())).data.mul_(1.0001)
    line, last = lineage(opened, fresh.digest()), executed(opened, SECOND)
    with pytest.raises(UserError, match=rf"lacks earlier erasures, .* {SECOND}; give the model {last.model[:12]} or"):
        execution.execute(opened, THIRD, fresh, chain.material, tmp_path / "run", RECIPE)
    check_known(opened, "fresh", line, another=True)
    with pytest.raises(UserError, match=f"has, or needs, the erasures of {FIRST}, {SECOND}; leave out --another-model"):
        check_known(opened, "planted", lineage(opened, planted.digest()), another=True)
    middle = with_edits(opened, planted, [executed(opened, FIRST)])
    line = lineage(opened, middle.digest())
    assert ([e.requests for e in line.present], [e.requests for e in line.missing]) == ([(FIRST,)], [(SECOND,)])
    edit_path(opened, last.edit).unlink()
    with pytest.raises(UserError, match=f"is missing or is not the edit that {SECOND} was executed with"):
        execution.execute(opened, THIRD, middle, chain.material, tmp_path / "run", RECIPE)
    assert not (tmp_path / "run").exists()


def test_a_restored_model_gets_all_edits_that_it_lacks(
    opened: Register, chain: Chain, planted: Model, tmp_path: Path
) -> None:
    assert replay(opened, FIRST, planted, tmp_path / "whole") == Restored((FIRST, SECOND))
    whole = load(str(tmp_path / "whole"))
    assert whole.digest() == executed(opened, SECOND).result
    assert replay(opened, FIRST, whole, tmp_path / "again") == Restored((FIRST, SECOND))
    assert load(str(tmp_path / "again")).digest() == whole.digest()
    assert len(erasures(opened)) == 2


def test_two_at_a_time_cannot_lose_one_another(opened: Register, planted: Model) -> None:
    before = opened.entries()
    made = Execution(1, 1, "", "d" * 64, GOOD, GOOD, (), {THIRD: (Shown(1, 1, {}, {}),) * 2})
    with pytest.raises(UserError, match=f"{FIRST} was executed on this model meanwhile; give the command again"):
        finish(opened, made, {"model": planted.digest()}, execution.EDITS, None)
    assert opened.entries() == before


def test_edits_outlive_their_expired_requests(opened: Register, chain: Chain, planted: Model) -> None:
    result = executed(opened, SECOND).result
    for id in (FIRST, SECOND):
        steps.close(opened, id, "answered", today=TODAY)
    assert upkeep.expire(opened, 1) == [FIRST, SECOND]
    line = lineage(opened, planted.digest())
    assert [each.words for each in line.missing] == ["requests that were deleted from the register"] * 2
    assert with_edits(opened, planted, line.missing).digest() == result
    assert opened.verify() is None
    named = [f for f in chain.folder.rglob("*") if f.is_file() and FIRST.encode() in f.read_bytes()]
    assert {f.parent.name for f in named} == {"edits"}


def test_verifying_asks_the_earlier_erasure_again(
    opened: Register, chain: Chain, made: Chain, planted: Model, tmp_path: Path, short_audits: None
) -> None:
    run = tmp_path / "run-2"
    shutil.copytree(made.folder / "run-2", run)
    exported = load(str(export(with_edits(opened, planted, [executed(opened, FIRST)]), tmp_path / "model")))
    found = verification.verify(opened, SECOND, exported, chain.material, run)
    assert [(each.request, each.outcome) for each in found.earlier] == [(FIRST, HOLDS)]
    assert not found.undone
    assert "CAME BACK" not in found.plain
    kinds = [(entry.kind, entry.said.request) for entry in opened.entries()[-2:]]
    assert kinds == [("verified", SECOND), ("asked again", FIRST)]
    assert opened.verify() is None
