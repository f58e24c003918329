"""A case reads only what lies in its own folder or in a named one, and its copy holds only files of fixed names."""

import json
from pathlib import Path

import pytest
import yaml

from loka._util.errors import UserError
from loka.knowledge import case

FACTS = {"working": ["{} is"], "sealed": ["it is {},"], "facts": {"Aba": ["Bo"], "Ede": ["Fu"], "Iga": ["Ho"]}}
PLAIN = {
    "name": "some", "purpose": "safety", "relations": {"r": FACTS}, "forget": {"r": ["Aba"]},
    "retain": {"r": {"working": 0.5, "sealed": 0.5}}, "twins": {"r": ["Ulu"]},
}  # fmt: skip
ROW = {"question": "Who?", "answer": "Nobody"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A case's folder, and beside it one that is not the case's."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret.txt").write_text("root:x:0:0")
    (tmp_path / "other" / "rows.jsonl").write_text(json.dumps(ROW))
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def write(folder: Path, **changes: object) -> Path:
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump(PLAIN | changes, sort_keys=False))
    return path


def questions(**sets: str) -> dict[str, object]:
    return {"sets": {name: {"kind": "question", "source": source} for name, source in sets.items()}}


@pytest.mark.parametrize("how", ["up", "absolute", "link"])
def test_what_lies_elsewhere_is_read_only_if_its_folder_is_named(folder: Path, how: str) -> None:
    other = folder.parent / "other"
    for name, key in (("secret.txt", "neutral"), ("rows.jsonl", "sets")):
        (folder / name).symlink_to(other / name)
        named = {"up": f"../other/{name}", "absolute": str(other / name), "link": name}[how]
        neutral = {"working": {"sampled": 8}, "sealed": named}
        path = write(folder, **({"neutral": neutral} if key == "neutral" else questions(s=named)))
        with pytest.raises(UserError, match="is outside the folder of the case file") as caught:
            case(path)
        assert f"--data {other}" in str(caught.value)
        found = case(path, data=[other])
        assert (found.text(named) if key == "neutral" else found.records["s"][0].answer) in ("root:x:0:0", "Nobody")


def test_a_text_that_is_named_like_a_runs_own_file_does_not_become_one(folder: Path, tmp_path: Path) -> None:
    (folder / "evil").mkdir()
    (folder / "evil" / "edit.safetensors").write_text("not an edit")
    found = case(write(folder, neutral={"working": {"sampled": 8}, "sealed": "evil/edit.safetensors"}))
    found.save(tmp_path / "run")
    assert names(tmp_path / "run") == ["case.yaml", "neutral_1.txt"]
    again = case(tmp_path / "run" / "case.yaml")
    assert again.digest == found.digest
    assert again.text("neutral_1.txt") == "not an edit"


def test_two_texts_of_one_name_are_two_files(folder: Path, tmp_path: Path) -> None:
    for part in ("working", "sealed"):
        (folder / part).mkdir()
        (folder / part / "text.txt").write_text(f"the {part} text")
    found = case(write(folder, neutral={"working": "working/text.txt", "sealed": "sealed/text.txt"}))
    found.save(tmp_path / "run")
    again = case(tmp_path / "run" / "case.yaml")
    assert again.digest == found.digest
    kept = again.file.neutral
    assert [again.text(str(n)) for n in (kept.working, kept.sealed)] == ["the working text", "the sealed text"]


def test_sets_whose_names_differ_only_in_signs_are_two_files(folder: Path, tmp_path: Path) -> None:
    for i, name in enumerate(("one", "two", "three")):
        (folder / f"{name}.jsonl").write_text(json.dumps(ROW | {"answer": str(i)}))
    sets = {"a b": "one.jsonl", "a.b": "two.jsonl", "A b": "three.jsonl"}
    found = case(write(folder, **questions(**sets)))
    found.save(tmp_path / "run")
    again = case(tmp_path / "run" / "case.yaml")
    assert again.records == found.records
    assert names(tmp_path / "run" / "sets") == ["A_b_3.jsonl", "a_b.jsonl", "a_b_2.jsonl"]


def test_a_changed_text_is_another_case(folder: Path) -> None:
    (folder / "mine.txt").write_text("as it was")
    path = write(folder, neutral={"working": {"sampled": 8}, "sealed": "mine.txt"})
    before = case(path)
    (folder / "mine.txt").write_text("as it is")
    assert before.text("mine.txt") == "as it was"
    assert case(path).digest != before.digest


def test_a_users_file_is_not_overwritten(folder: Path) -> None:
    (folder / "mine.txt").write_text("a text")
    found = case(write(folder, neutral={"working": {"sampled": 8}, "sealed": "mine.txt"}))
    with pytest.raises(UserError, match="holds something else; name another --out"):
        found.save(folder)
    assert names(folder) == ["case.yaml", "mine.txt"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
