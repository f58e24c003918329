"""Texts that no item can have, spellings that are one subject, and wrong answers drawn at small cost."""

import random
from pathlib import Path

import pytest
import yaml

from loka._util.errors import UserError
from loka.knowledge import Case, Choice, Fact, Pair, Question, case, neutral_sealed
from loka.knowledge.draw import draw

MANY = 4000


@pytest.mark.parametrize("seed", range(50))
def test_drawing_without_some_is_sampling_the_rest(seed: int) -> None:
    rng = random.Random(seed)
    pool = sorted({str(rng.randint(0, 60)) for _ in range(rng.randint(1, 40))})
    without = [str(rng.randint(0, 60)) for _ in range(rng.randint(0, 8))]
    rest = sorted(set(pool) - set(without))
    expected = random.Random(seed).sample(rest, min(9, len(rest)))
    assert draw(pool, 9, random.Random(seed), without=without) == tuple(expected)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            Fact("Kenya", "capital", "the capital of Kenya is", "Nairobi "),
            "the answer 'Nairobi ' has white space around",
        ),
        (
            Fact("Kenya ", "capital", "the capital of Kenya is", "Nairobi"),
            "the subject 'Kenya ' has white space around",
        ),
        (Fact("Kenya", "a|b", "the capital of Kenya is", "Nairobi"), "the relation 'a|b' has '|' in it"),
        (Fact("Kenya", "a/b", "the capital of Kenya is", "Nairobi"), "the relation 'a/b' has '/' in it"),
        (Fact("Kenya", "", "the capital of Kenya is", "\ufeffNairobi"), "has a byte order mark in it"),
        (Question("Who?", "Ann", wrong=("Bob", " ")), "wrong has ' ' is blank"),
        (Choice("Who?", ("Ann", "Bob "), 0), "options has 'Bob ' has white space"),
        (Pair("a b", "a c", "b", " c"), "the foil ' c' has white space"),
    ],
)
def test_a_record_that_cannot_be_asked_is_refused(record: Fact, said: str) -> None:
    with pytest.raises(UserError) as caught:
        Case.of([record])
    assert said in str(caught.value)
    assert "item 1" in str(caught.value)


def test_two_spellings_of_a_subject_are_one_unit() -> None:
    named = (("P\u00e9rou", "Lima"), ("Pe\u0301rou", "Cuzco"), ("Chili", "Santiago"))
    found = Case.of([Fact(s, "", f"the capital of {s} is", a) for s, a in named])
    assert len({i.unit for i in found.forget.sealed}) == 2


def test_facts_about_one_subject_are_all_in_the_pool() -> None:
    facts = [
        Fact("Kenya", "", f"the {what} of Kenya is", a) for what, a in (("capital", "Nairobi"), ("coin", "shilling"))
    ]
    found = Case.of([*facts, Fact("Peru", "", "the capital of Peru is", "Lima")])
    assert set(found.pool("forget_fact")) == {"Nairobi", "shilling", "Lima"}


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    facts = {"Foo": "Bar", "Goo": "Car"}
    content = {
        "name": "marked", "purpose": "safety", "forget": {"capital": ["Foo"]},
        "relations": {"capital": {"working": ["the capital of {} is"], "sealed": ["in {} it is"], "facts": facts}},
        "neutral": {"working": "plain.txt", "sealed": "plain.txt"},
    }  # fmt: skip
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "plain.txt").write_bytes("\ufeffOne.\n\n\ufeffTwo.\n".encode())
    assert neutral_sealed(case(tmp_path / "case.yaml").whole()) == ["One.", "Two."]


def test_drawing_from_a_large_pool_looks_at_few_of_it() -> None:
    looked: list[int] = []

    class Counted(list[str]):
        def __getitem__(self, i):
            looked.append(i)
            return super().__getitem__(i)

        def __iter__(self):
            pytest.fail("it went over the whole pool")

    pool = Counted(f"{i:05}" for i in range(MANY))
    assert len(draw(pool, 9, random.Random(0), without=["00007"])) == 9
    assert len(looked) < 40


def test_a_large_case_has_foils_for_every_item() -> None:
    made = Case.of([Question(f"Who is {i}?", f"answer {i}", subject=f"S{i}") for i in range(MANY)])
    assert all(len(i.foils) == 9 and i.answer not in i.foils for i in made.forget.sealed)
