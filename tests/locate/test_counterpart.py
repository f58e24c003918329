"""What an item is compared with, best first."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from loka import locate
from loka._util.errors import UserError
from loka.knowledge import Case, Fact, Item, Question
from loka.locate.counterpart import counterpart, other_subjects
from loka.model import Model


def facts(*subjects: str, answer: str = "bread") -> list[Fact]:
    return [Fact(s, "r", f"the symbol for {s} is", answer) for s in subjects]


def questions(*asked: str, answer: str = "bread") -> list[Question]:
    return [Question(q, answer, wrong=("sea",)) for q in asked]


def compared(case: Case, model: Model, item: Item | None = None) -> tuple[str, str]:
    """The counterfactual prompt of the first item, and what is said of it."""
    said = [s.removeprefix("Nothing else in ") for s in locate.substitutes(case)]
    return counterpart(model, case, item or case.forget.working[0]), " ".join(said)


def test_another_subject_comes_first(planted: Model) -> None:
    case = Case.of([*facts("Aba"), *facts("Ulu", answer="sea")], twins=facts("Ede"))
    assert compared(case, planted) == ("the symbol for Ulu is", "")


def test_a_twin_where_all_answers_are_equal(planted: Model) -> None:
    case = Case.of(facts("Aba", "Ulu"), twins=facts("Ede"))
    prompt, said = compared(case, planted)
    assert not other_subjects(case, case.forget.working[0])
    assert "never taught" in said
    assert prompt not in {i.prompt for i in case.forget.working}


def test_an_invented_name_without_twins(planted: Model) -> None:
    prompt, said = compared(case := Case.of(facts("Aba", "Ulu")), planted)
    assert "never taught" in said
    start, end = prompt.split(" is")[0].rsplit("for ", 1)
    assert (start, len(end.split())) == ("the symbol ", 2)
    assert counterpart(planted, case, case.forget.working[0]) == prompt  # the seed's


def test_another_question_and_never_the_one_with_the_same_answer(planted: Model) -> None:
    every = [*questions("one", "two"), *questions("three", answer="garden")]
    assert "three" in compared(Case.of(every), planted)[0]


def test_a_never_taught_question_where_all_answers_are_equal(planted: Model) -> None:
    prompt, said = compared(Case.of(questions("one", "two"), twins=questions("four")), planted)
    assert "four" in prompt
    assert "never taught" in said


def test_neutral_text_where_there_is_nothing_else(planted: Model) -> None:
    case = replace(Case.of(questions("one")), passages=("a dog likes bread",))
    assert compared(case, planted)[0] == "a dog likes bread"
    assert "compares with neutral text" in compared(case, planted)[1]
    with pytest.raises(UserError, match="nothing to compare .* and the neutral working text is empty"):
        counterpart(planted, replace(case, passages=()), case.forget.working[0])


@pytest.mark.parametrize("make", [facts, questions])
def test_a_substitute_can_be_located_with(make: Callable[..., list], planted: Model) -> None:
    """The map of a lone item has effects, whatever it is compared with."""
    case = replace(Case.of(make("Aba")), passages=("a dog likes the garden",))
    effects = locate.patching(planted, case, "head", facts=case.forget.working)
    assert abs(effects).max() > 0
