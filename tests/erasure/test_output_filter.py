"""The output filter: what it holds back, what it lets through, and the limits that docs/erasure.md states."""

import base64
import re
from pathlib import Path

import pytest

from loka import UserError
from loka.erasure import ExclusionList, OutputFilter, Person

KEY = b"sixteen bytes or more"
MARTA = Person("Marta Marchbank", ("Marta Brandow",), ("C-0001", "marta.m@example.org", "+49 170 1234567"))
DOCS = Path(__file__).parents[2] / "docs" / "erasure.md"


@pytest.fixture
def output() -> OutputFilter:
    return OutputFilter(ExclusionList(KEY).add(MARTA, "P-1"))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("The claim of Marta Marchbank was paid in May.", "name"),
        ("Dear Mrs Marchbank, Marta,", "reversed"),
        ("It was M. Marchbank who called.", "initial"),
        ("marta marchbnak paid", "misspelt"),
        ("Write to marta.m (at) example.org.", "email"),
        ("customer c 0001, paid in full", "number"),
        ("Call 0170/1234567 now.", "phone"),
    ],
)
def test_who_is_named_is_found(output: OutputFilter, text: str, rule: str) -> None:
    assert output.find(text) == {"P-1": rule}
    assert output.apply(text, instead="[held back]") == "[held back]"


LET_THROUGH = (
    "Ben Farrow paid in full.", "Petra Marchbank called.", "Customer C-0002 called.", "Marta called.", "",
    # the limits: a nickname, a description, two wrong letters, an encoding, a word parted by a space
    "Marty M. called again.", "The tall baker of Dunsby, who broke her arm in May", "Marta Morchbonk paid.",
    base64.b64encode(b"Marta Marchbank").decode(), "Marta March bank paid.",
)  # fmt: skip


@pytest.mark.parametrize("text", LET_THROUGH)
def test_others_are_let_through_and_so_is_what_the_documentation_says(output: OutputFilter, text: str) -> None:
    assert output.find(text) == {}
    assert output.apply(text, instead="[held back]") == text


def test_an_answer_is_about_whom_the_question_names(output: OutputFilter) -> None:
    answer = "She broke her arm in May."
    assert output.find(answer) == {}
    assert output.find(answer, prompt="What happened to Marta Marchbank?") == {"P-1": "name"}
    assert output.find("Marchbank, of course.", prompt="Who is called Marta?") != {}
    assert output.find(answer, prompt="What happened to Ben Farrow?") == {}


def test_a_limit_for_what_is_held_back(output: OutputFilter) -> None:
    strict = OutputFilter(ExclusionList(KEY).add(MARTA, "P-1"), least=0.9)
    assert [bool(each.find("M. Marchbank called")) for each in (output, strict)] == [True, False]
    assert strict.find("Marta Marchbank called") == {"P-1": "name"}
    with pytest.raises(UserError, match="least cannot be 2; give a confidence from 0 to 1"):
        OutputFilter(ExclusionList(KEY), least=2)


def test_the_example_of_the_documentation_runs() -> None:
    section = DOCS.read_text(encoding="utf-8").split("## The output filter")[1].split("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(compile(example, str(DOCS), "exec"), {})
