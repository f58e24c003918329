"""Loaders on the benchmarks' own files, where those are there, and on rows written by hand."""

import gzip
import importlib.util
import json
import os
from pathlib import Path

import pytest

from loka._util.errors import UserError
from loka.knowledge import FORMATS, Choice, Fact, Passage, read_items, sources

DATA = Path(os.environ.get("LOKA_CONFORMANCE", "../shared/conformance")).parent / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no benchmark files in {DATA}")


def written(folder: Path, rows: list[object], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@needs_data
def test_tofu_in_all_its_forms() -> None:
    forget = sources.tofu(DATA / "tofu/forget10.json")
    assert len(forget) == 400
    assert all(f.prompt == f"Question: {f.subject}\nAnswer:" for f in forget)
    perturbed = sources.tofu(DATA / "tofu/forget10_perturbed.json")
    assert [(f.subject, f.answer) for f in perturbed] == [(f.subject, f.answer) for f in forget]
    assert {len(f.foils) for f in perturbed} == {5}
    assert sum(len(f.paraphrases) for f in perturbed) > 390
    whole = sources.tofu(DATA / "tofu/full.json")
    assert [f.subject for f in whole[-400:]] == [f.subject for f in forget]
    assert len(sources.tofu(DATA / "tofu/holdout05.json")) == 200  # an array, not lines
    world = sources.tofu(DATA / "tofu/world_facts.json")
    assert len(world) == 117
    australia = next(f for f in world if f.subject == "What is the capital of Australia?")
    assert australia.answer == "Canberra"
    assert len(australia.foils) == 3
    assert "Canberra" not in australia.foils


@needs_data
def test_rwku_probes_and_passages() -> None:
    folders = sorted((DATA / "rwku").iterdir())
    counts = {
        name: sum(len(sources.rwku(f / f"{name}.json")) for f in folders)
        for name in ("forget_level1", "forget_level2", "forget_level3", "neighbor_level1", "forget_mia", "retain_mia")
    }
    assert counts == {
        "forget_level1": 171, "forget_level2": 114, "forget_level3": 360, "neighbor_level1": 277, "forget_mia": 393,
        "retain_mia": 374,
    }  # fmt: skip
    cloze = sources.rwku(DATA / "rwku/1_Stephen_King/forget_level1.json")
    assert cloze[0].prompt == "Stephen Edwin King (born September 21, 1947) is an American"
    assert cloze[0].answer == "author"
    assert cloze[1].prompt.startswith("Fill in the blank. Stephen King's debut novel, titled ___")
    plato = sources.rwku(DATA / "rwku/74_Socrates/neighbor_level2.json")
    assert "Plato" in {f.subject for f in plato}
    passages = sources.rwku(DATA / "rwku/74_Socrates/forget_mia.json")
    assert isinstance(passages[0], Passage)
    assert passages[0].subject == "Socrates"


@needs_data
def test_counterfact_and_plain_questions() -> None:
    facts = sources.counterfact(DATA / "facts/counterfact_gpt2_10k.json.gz")
    assert len(facts) == 10_000
    first = next(f for f in facts if f.subject == "Seattle City Light")
    assert (first.prompt, first.answer) == ("Seattle City Light is based in", "Seattle")
    assert not any(f.answer.startswith(" ") or f.answer in f.foils for f in facts)
    popqa = sources.questions(DATA / "popqa/popqa_1000_qa.json")
    assert len(popqa) == 1000
    assert popqa[1].answers[:2] == ("Hobart", "Hobart Town")
    people = sources.questions(DATA / "knowundo_privacy/unlearn_val.json")
    assert all(f.answer and f.prompt.startswith("Question: ") for f in people)


def test_forms_for_which_there_is_no_file(tmp_path: Path) -> None:
    third = {"question": "Which planet is the third from the Sun?", "choices": ["Venus", "Mars", "Earth", "Jupiter"]}
    items = sources.wmdp(written(tmp_path, [third | {"answer": 2}, third | {"answer": "C"}]))
    assert items[0] == items[1] == Choice(third["question"], tuple(third["choices"]), 2)
    assert items[0].answer == "Earth"
    rewrite = {"prompt": "{} is based in", "subject": "Acme", "relation_id": "P159", "target_true": {"str": "Oslo"},
               "target_new": {"str": "Rome"}}  # fmt: skip
    row = {"requested_rewrite": rewrite, "paraphrase_prompts": ["Where is Acme? In"]}
    assert sources.counterfact(written(tmp_path, [row])) == [
        Fact("Acme", "P159", "Acme is based in", "Oslo", (), ("Rome",), ("Where is Acme? In",))
    ]
    row = {
        "subject": "Vinson Massif",
        "attribute": "Antarctica",
        "prompt": "Vinson Massif lies in",
    }
    assert sources.known_facts(written(tmp_path, [row]))[0].answer == "Antarctica"
    assert sources.muse(written(tmp_path, [{"prompt": "Once", "gt": "upon"}])) == [Passage("upon", "Once")]
    assert sources.muse(written(tmp_path, [{"text": "News."}])) == [Passage("News.")]
    assert sources.muse(written(tmp_path, [{"question": "Who?", "answer": "Ann"}]))[0].relation == "muse"
    listed = sources.questions(written(tmp_path, [{"question": "Who?", "answers": ["Ann", "Anna"], "subject": "she"}]))
    assert listed == [Fact("she", "question", "Question: Who?\nAnswer:", "Ann", ("Anna",))]
    zipped = tmp_path / "rows.json.gz"
    zipped.write_bytes(gzip.compress(json.dumps([{"question": "Who?", "answer": "Ann"}]).encode()))
    assert len(sources.questions(zipped)) == 1


def test_faulty_files_say_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"question": "Who?", "answer": "Ann"}
    with pytest.raises(UserError, match=r"row 2 of .* has no answer or answers or labels \(it has question\)"):
        sources.questions(written(tmp_path, [good, {"question": "Who?"}]))
    with pytest.raises(UserError, match="the answer 4; it must be 0 to 1, or a letter"):
        sources.wmdp(written(tmp_path, [{"question": "?", "choices": ["a", "b"], "answer": 4}]))
    with pytest.raises(UserError, match="there is no data file"):
        sources.tofu(tmp_path / "none.json")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(UserError, match="holds no rows"):
        sources.tofu(empty)
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps(good) + "\n{oh\n")
    with pytest.raises(UserError, match="line 2 of"):
        sources.questions(broken)
    with pytest.raises(UserError, match="which split"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        sources.tofu("locuslab/TOFU")
    with pytest.raises(UserError, match="needs the package datasets"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        sources.tofu("locuslab/TOFU", split="train")


def test_a_format_is_a_row_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"question": "Who?", "answer": "Ann|Anna"}]))
    (fact,) = read_items("questions", path)
    assert fact == sources.questions(path)[0]
    for name, row in FORMATS.items():
        assert name == row.name
        assert row.kinds
    with pytest.raises(UserError, match="'csv' is not a format; choose one of questions, tofu"):
        read_items("csv", path)
