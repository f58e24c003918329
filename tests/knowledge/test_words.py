"""Texts in any script against themselves, and answers that stand in other words."""

import pytest

from loka._util.errors import UserError
from loka.knowledge.words import contains, words
from loka.verify import rouge


@pytest.mark.parametrize(
    "text",
    [
        "東京",
        "日本の首都は東京です。",
        "北京是中国的首都",
        "กรุงเทพ",
        "Москва",
        "서울 특별시",
        "नई दिल्ली",
        "القاهرة",
        "Taipéi",
        "São Paulo",
    ],
)
def test_a_text_against_itself_is_one(text: str) -> None:
    found = rouge(text, text)
    assert (found.rouge1_recall, found.rougeL_recall, found.rougeL_f1) == (1, 1, 1)
    assert contains(text, text)


@pytest.mark.parametrize(
    ("said", "truth", "recall"),
    [
        ("首都は東京です", "東京", 1.0),
        ("京都", "東京", 0.5),
        ("大阪", "東京", 0.0),
        ("Taipei", "Taipéi", 0.0),
        ("Hsiao was born in TAIPE\u0301I", "Taipéi", 1.0),  # another Unicode form, another case
        ("he lived in Köln", "Köln am Rhein", 1 / 3),
        ("running", "runs", 1.0),  # English words are stemmed
    ],
)
def test_rouge_by_hand(said: str, truth: str, recall: float) -> None:
    assert rouge(said, truth).rougeL_recall == pytest.approx(recall)


@pytest.mark.parametrize("text", ["Hsiao Yun-Hwa's 1,000 novels_of rain", "C++ is it?", ""])
def test_plain_english_has_the_peers_words(text: str) -> None:
    for convention in ("open-unlearning", "tofu", "muse"):
        assert rouge(text, "novels of C and 1,000", convention=convention) == rouge(text, "novels of C and 1,000")
    with pytest.raises(UserError, match="'mimir' is not a convention of this metric"):
        rouge(text, text, convention="mimir")


@pytest.mark.parametrize(
    ("answer", "text", "stands"),
    [
        ("C", "C++ is", False), ("C", "C# is", False), ("C", "it is C.", True), ("C++", "C++ is", True),
        ("C++", "C is", False), ("Paris", "**Paris**", True), ("Paris", "Parisian", False), ("Au", "gold is AU", True),
        ("1", "1,000 men", False), ("1,000", "1,000 men", True), ("5", "3.5", False), ("1954", "in 1954.", True),
        ("東京", "首都は東京です", True), ("東京", "京都", False), ("Tokyo", "首都はTokyoです", True),
        ("New York", "in new  york,", True), ("St. John's", "St John's", True), ("", "anything", False),
    ],
)  # fmt: skip
def test_an_answer_stands_as_whole_words(answer: str, text: str, stands: bool) -> None:
    assert contains(text, answer) is stands


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        ("It is in New York.", False),
        ("It is in new  YORK, and New is no town", True),
        ("York New York City", False),
        ("New", True),
    ],
)
def test_an_answer_does_not_stand_within_a_longer_one(text: str, stands: bool) -> None:
    assert contains(text, "New")
    assert contains(text, "New", ["New York", "New York City"]) is stands


def test_marks_belong_to_their_letters() -> None:
    assert words("दिल्ली") == ["दिल्ली"]
    assert words("e\u0301te\u0301") == ["été"]
