"""An update carries its new answers from the case file to the edit and to the reading of recall."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from loka import ablate, verify
from loka._util.errors import UserError
from loka.ablate import RewriteConfig
from loka.knowledge import Case, case, score
from loka.model import Model
from loka.pipeline.recipe import default_recipe


@pytest.fixture
def update(planted: Model, files: Any, tmp_path: Path) -> Case:
    facts = files.base["relations"]["capital"]["facts"]
    subjects = list(facts)[:3]
    answers = {s: facts[list(facts)[i + 20]] for i, s in enumerate(subjects)}
    path = files.write(tmp_path, forget={"capital": subjects}, updates={"capital": answers}, purpose="update")
    return case(path).on(planted)


def test_the_new_answers_are_written_by_default(planted: Model, update: Case) -> None:
    assert default_recipe(update).method == "memit"
    assert set(update.updates) <= {f.subject for f in update.forget.working}
    edit = ablate.rome(planted, update, config=RewriteConfig(steps=30, contexts=0, target_loss=0.05))
    asked = [(f.prompt, update.updates[f.subject], f.answer) for f in update.forget.working]

    def logprobs(place: int) -> Tensor:
        return score(planted, [p for p, *_ in asked], [a[place] for a in asked]).logprob

    new, old = logprobs(1), logprobs(2)
    with edit.applied(planted):
        assert (logprobs(1) - new).mean() > 1
        assert (logprobs(2) - old).mean() < -1
        reading = verify.recall(planted, update)
    assert "of the new answers" in reading.meaning
    assert 0 <= reading.details["updated"] <= 1  # type: ignore[operator]
    assert verify.recall(planted, update).details["updated"] == 0


def test_an_old_answer_that_begins_with_the_new_one_is_not_the_new_one(
    planted: Model, files: Any, tmp_path: Path
) -> None:
    old = {s: a for s, a in files.base["relations"]["capital"]["facts"].items() if " " in a}
    new = {s: old[s].split()[0] for s in list(old)[:3]}
    path = files.write(tmp_path, forget={"capital": [*new]}, updates={"capital": new}, purpose="update")
    reading = verify.recall(planted, case(path).on(planted))
    assert reading.value == 1
    assert reading.details["updated"] == 0


def test_other_cases_keep_the_usual_recipe(planted: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)  # type: ignore[attr-defined]
    assert default_recipe(known).name == "quick"
    assert "updated" not in verify.recall(planted, known).details


@pytest.mark.parametrize(
    ("updates", "said"),
    [
        ({"capital": {"Atlantis": "Poseidonis"}}, r"updates.capital.Atlantis: there is no fact about 'Atlantis'"),
        ({"town": {"A": "B"}}, "updates names 'town', which is not among the relations and sets"),
    ],
)
def test_an_update_of_nothing_is_refused(files: Any, tmp_path: Path, updates: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        case(files.write(tmp_path, updates=updates))


def test_an_update_to_the_same_answer_is_refused(files: Any, tmp_path: Path) -> None:
    subject, answer = next(iter(files.base["relations"]["capital"]["facts"].items()))
    with pytest.raises(UserError, match=f"'{answer}' is already the answer about '{subject}'"):
        case(files.write(tmp_path, updates={"capital": {subject: answer}}))
