"""Questions that need what is forgotten: the planted model answers them, one that was never taught does not."""

from pathlib import Path
from typing import Any

import pytest

from loka import Case, verify
from loka._util.errors import UserError
from loka.knowledge import CaseSpec, Redactor, case
from loka.model import Model
from loka.verify.units import unit_key

CHECK = next(c for c in verify.CHECKS if c.name == "downstream")


@pytest.fixture
def spec(kinds: Any, tmp_path: Path) -> CaseSpec:
    """Facts to forget, and questions that follow from them; one of these nobody can answer."""

    def asked(row: dict[str, Any]) -> dict[str, Any]:
        ask, also = f"they rule {row['subject']} from the town of", f"the capital town of {row['subject']} is"
        return {**row, "question": ask, "paraphrases": [also]}

    questions = [asked(row) for row in kinds.taught("question")]
    questions.append({**questions[0], "question": "a small bird likes", "paraphrases": [], "subject": "a small bird"})
    parts = {"target": kinds.taught("fact"), "others": kinds.taught("fact", first=False), "never": kinds.never("fact")}
    sets = {name: {"kind": "fact", "items": [{**r, "relation": "P36"} for r in rows]} for name, rows in parts.items()}
    follows = {"kind": "question", "items": questions, "frame": "{}"}
    return kinds.write(tmp_path, "fact", sets={**sets, "follows": follows}, downstream={"follows": "all"})


def test_what_follows_is_asked_where_the_original_knew_it(
    spec: CaseSpec, planted: Model, untaught: Model, kinds: Any
) -> None:
    known = spec.on(planted)
    assert 14 <= len(known.downstream) <= 16
    assert "a small bird" not in {i.subject for i in known.downstream}
    assert {i.subject for i in known.downstream_twins}.isdisjoint(kinds.countries)
    found, never = verify.downstream(planted, known), verify.downstream(untaught, known)
    assert found.value is not None
    assert never.value is not None
    assert found.value > 0.9
    assert never.value < 0.5  # of the answers of two words, the second is always the same
    assert set(found.samples["forget"]) == {unit_key(i) for i in known.downstream}
    assert len(found.samples["twins"]) == len(known.downstream)
    assert found.cost == CHECK.cost(planted, known, verify.Setting())


def test_a_case_without_such_questions_is_asked_none(planted: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)
    assert not CHECK.applies(known)
    with pytest.raises(UserError, match="has no downstream questions that the model knows; name a set"):
        verify.downstream(planted, known)


def test_a_copy_of_the_case_asks_the_same(spec: CaseSpec, planted: Model, tmp_path: Path) -> None:
    spec.save(tmp_path / "run")
    again = case(tmp_path / "run" / "case.yaml")
    assert again.on(planted).downstream == spec.on(planted).downstream
    assert again.digest == spec.digest


def test_redaction_hides_the_questions(spec: CaseSpec, planted: Model) -> None:
    known = spec.on(planted)
    hidden = str(Redactor(known, bytes(32)).hide([str(known.downstream[0].prompt), unit_key(known.downstream[0])]))
    assert known.downstream[0].subject not in hidden


@pytest.mark.parametrize(
    ("downstream", "said"),
    [
        ({"nowhere": "all"}, "downstream names 'nowhere', which is not among the relations and sets"),
        ({"others": "all"}, "'others' must be a set that is named neither under forget, retain nor twins"),
        ({"follows": {"working": 0.5}}, "downstream has no parts; give all, a number"),
        ({"follows": 99}, r"downstream asks for 99 items of 'follows', but there are \d+ that the model knows"),
    ],
)
def test_faulty_downstream_sets_are_refused(
    kinds: Any, planted: Model, tmp_path: Path, downstream: dict[str, Any], said: str
) -> None:
    sets = {"target": {"kind": "fact", "items": [{**r, "relation": "P36"} for r in kinds.taught("fact")]},
            "others": {"kind": "fact", "items": [{**r, "relation": "P36"} for r in kinds.taught("fact", first=False)]},
            "follows": {"kind": "choice", "items": kinds.never("choice"), "frame": "{}"}}  # fmt: skip
    with pytest.raises(UserError, match=said):
        kinds.write(tmp_path, "fact", sets=sets, twins={}, downstream=downstream).on(planted)
