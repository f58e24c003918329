"""One reader for all YAML: files that grow, files that never end, and values that PyYAML stumbles over."""

import pytest

from loka._util.errors import UserError
from loka._util.yaml_text import compose, read_yaml

NINE = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


def test_plain_data() -> None:
    assert read_yaml("a: [1, 2]\nb: {c: yes}", "it") == {"a": [1, 2], "b": {"c": True}}
    assert read_yaml("a: &a [1, 2]\nb: *a", "it") == {"a": [1, 2], "b": [1, 2]}
    assert read_yaml("", "it") is None
    assert read_yaml("[" * 50 + "]" * 50, "it") is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NINE, r"it is not valid YAML \(line \d, column \d+\): its aliases stand for far more than the file holds"),
        ("a: &a [*a]", r"\(line 1, column 8\): the alias \*a stands inside its own value"),
        ("a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 20 + "*a" + "]" * 20, "nested over 50 levels deep"),
        ("[" * 500, r"\(line 1, column 51\): it is nested over 50 levels deep"),
        ("[" * 10**6, "nested over 50 levels deep"),
        ("".join(f"{' ' * i}- \n" for i in range(100)), "nested over 50 levels deep"),
        ("a: [", "is not valid YAML"),
        ("a: \0", "not valid YAML: special characters are not allowed"),
        ("a: 2024-13-45", "a value that is not YAML"),
        ("a: " + "9" * 5000, "a value that is not YAML"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor for the tag"),
        ("{[1]: 2}", "unhashable key"),
        ("a: 1\n--- \nb: 2", "but found another document"),
        ("a: 1\nb: 2\na: 3", r"\(line 3, column 1\): 'a' is given twice; keep one of them"),
        ("x: {a: 1, 'a': 2}", r"\(line 1, column 11\): 'a' is given twice"),
        ("16: a\n0x10: b", r"\(line 2, column 1\): '0x10' is given twice"),
    ],
)
def test_what_is_not_plain_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_yaml(text, "it")


def test_what_a_mapping_takes_from_another_may_be_given_again() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: [*b, *a], x: 3}"
    assert read_yaml(text, "it") == {"a": {"x": 1, "y": 1}, "b": {"x": 2, "y": 1}, "c": {"x": 3, "y": 1}}


def test_nodes_are_read_alike() -> None:
    node = compose("a: 1", "it")
    assert node is not None
    assert node.start_mark.line == 0
    with pytest.raises(UserError, match="far more than the file holds"):
        compose(NINE, "it")
