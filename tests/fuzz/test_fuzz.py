"""Every kind of file, mangled: it is read, or refused in a sentence that names it, soon and in little memory."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from loka._util.errors import LokaError
from loka._util.ledger import check_files, finishing
from loka._util.provenance import NAME, Provenance, read_provenance
from loka.audit.store import read_readings
from loka.knowledge import FORMATS, case, read_records
from loka.locate import Localization, LocalizationRecord
from loka.locate.contrast import contrast
from loka.model import Edit, EditRecord, Model, Slice
from loka.model.edit.factors import Factors
from loka.pipeline.recipe import Recipe
from loka.report.folder import RunFolder
from loka.verify import make_reading

from .conftest import Kind, attack, mangle

QUESTION = {"question": "Who wrote it?", "answer": "Ann Lee", "subject": "Ann"}
CHOICE = {"question": "Which?", "choices": ["Mars", "Venus", "Earth", "Io"], "answer": 2, "subject": "astronomy"}
ROWS: dict[str, list[dict[str, Any]]] = {
    "tofu": [QUESTION | {"perturbed_answer": ["Bo", "Cy"], "paraphrased_question": "By whom?", "option1": "Bo"}],
    "wmdp": [CHOICE],
    "mmlu": [CHOICE],
    "muse": [QUESTION],
    "rwku": [{"query": "Ann Lee wrote ___.", "answer": "books", "subject": "Ann Lee", "level": "1", "type": "cloze"}],
    "counterfact": [
        {"requested_rewrite": {"prompt": "{} is in", "subject": "Kiev", "target_true": {"str": "Ukraine"},
         "target_new": {"str": "Peru"}, "relation_id": "P1"}, "paraphrase_prompts": ["Where is Kiev? In"]},
    ],
    "known_facts": [{"subject": "Kiev", "relation_id": "P1", "prompt": "Kiev is in", "attribute": "Ukraine"}],
    "popqa": [
        {"question": "Where?", "possible_answers": '["Ukraine", "Kiev"]', "subj": "Kiev", "prop": "is in", "obj": "U"}
    ],
    "knowundo": [{"text": "Who wrote it?", "labels": "Ann Lee"}],
    "lre": [
        {"name": "capital", "prompt_templates": ["{} has"], "prompt_templates_zs": ["Of {}:"],
         "samples": [{"subject": "Peru", "object": "Lima"}, {"subject": "Chile", "object": "Santiago"}]},
    ],
    "fact_completion": [
        {"stem": "Kiev is in", "true": "Ukraine", "false": "Peru <br> Chile", "subject": "Kiev", "object": "Ukraine",
         "relation": "P1"},
    ],
    "jsonl": [QUESTION, QUESTION | {"wrong": ["Bo"], "paraphrases": ["By whom?"]}],
    "csv": [QUESTION],
    "parquet": [QUESTION],
}  # fmt: skip


def test_every_format_is_mangled() -> None:
    assert set(ROWS) == set(FORMATS)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".jsonl.gz", ".parquet"])
def test_data_files(tmp_path: Path, suffix: str) -> None:
    frame, path = pd.DataFrame([QUESTION, QUESTION | {"answer": 'Bo, "B"\n'}]), tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        frame.assign(n=[1, None], of=[["a"], []]).to_parquet(path)
    elif suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    else:
        text = frame.to_json(orient="records", lines=suffix != ".json").encode()
        path.write_bytes(gzip.compress(text, mtime=0) if suffix.endswith(".gz") else text)
    name = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}.get(suffix, "jsonl")
    attack(Kind(path, lambda p: read_records(name, p, kind="question")))


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ("csv", "parquet")])
def test_benchmarks_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS[name] * 2)))
    assert read_records(name, path)
    attack(Kind(path, lambda p: read_records(name, p), mangle.JSON))


def test_case_files(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(QUESTION))
    (tmp_path / "mine.txt").write_text("Some text.\n\nMore text.")
    content = {
        "name": "some", "purpose": "safety", "forget": {"r": ["Aba"], "s": "all"}, "seed": 3, "unit": "subject",
        "relations": {
            "r": {"working": ["{} is"], "sealed": ["it is {},"], "facts": {"Aba": "Bo", "Ede": ["Fu", "Fo"]}}
        },
        "sets": {
            "s": {"kind": "question", "source": "rows.jsonl", "fields": {"question": "question"}},
            "t": {"kind": "question", "items": [{"question": "What?", "answer": "This."}]},
        },
        "retain": {"r": {"working": 0.5, "sealed": 0.5}, "t": {"working": 1.0}}, "twins": {"r": ["Ulu"]},
        "updates": {"r": {"Aba": "Bi"}}, "neutral": {"working": {"sampled": 8}, "sealed": "mine.txt"},
    }  # fmt: skip
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    case(path).whole()
    attack(Kind(path, case, mangle.YAML))


def test_recipes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(Recipe.load("quick").to_yaml())
    attack(Kind(path, Recipe.load, mangle.YAML))


def same_edit(a: Edit, b: Edit) -> bool:
    return a.digest() == b.digest() and a.record == b.record


def test_edits(tmp_path: Path) -> None:
    record = EditRecord("tune", "some", "case", ("L0.neuron.1",), {"config": {"steps": 3, "lr": 0.1}}, 0.5)
    values = torch.arange(6.0).reshape(2, 3)
    edit = Edit(
        (Slice("w", 0, torch.tensor([1, 3])), Slice("v", 1, torch.tensor([0]))), (values, torch.ones(4, 1)), "d" * 64,
        record, (Factors("u", torch.ones(3, 2), torch.ones(2, 5)),),
    )  # fmt: skip
    path = edit.save(tmp_path / "edit.safetensors")
    attack(Kind(path, Edit.load, mangle.TENSORS, same_edit))


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (4, 0), (1, 1, 1)])
def test_edits_of_odd_tensors(planted: Model, tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Empty tensors and those without dimensions are refused when they are read, or when they are applied."""
    name = next(iter(planted.parameters))
    for index in (torch.zeros(shape, dtype=torch.int64), torch.tensor([0])):
        edit = Edit((Slice(name, 0, index),), (torch.zeros(shape),), planted.digest())
        path = tmp_path / "edit.safetensors"
        edit.save(path)
        with pytest.raises(LokaError), Edit.load(path).applied(planted):
            if Edit.load(path).parameters == 0:
                raise LokaError("it changes nothing")
    assert not planted.edits


def same_localization(a: Localization, b: Localization) -> bool:
    return a.frame.equals(b.frame) and a.record == b.record


def localized(folder: Path) -> Path:
    raw = np.random.default_rng(0).normal(0, 0.1, (8, 2, 10))
    found = contrast({"neuron": raw}, np.ones(8), n_forget=4, record=LocalizationRecord("by hand", "some", "case"))
    return found.save(folder / "localization.parquet")


def test_localizations(tmp_path: Path) -> None:
    attack(Kind(localized(tmp_path), Localization.load, (*mangle.TEXT, mangle.flip, mangle.flip), same_localization))


def run_folder(folder: Path) -> Path:
    """A folder with readings and a localization, as a run leaves them."""
    made = Provenance.of_call("loka run", {"model": "some", "profile": "quick"}, seed=0, digests={"case": "c" * 64})
    made.write(folder)
    with finishing(folder, "readings.json") as path:
        reading = make_reading("recall", {"forget": {"a": 1.0, "b": 0.25}, "twins": {"c": 0.5}}, "Said.", cost=3.0)
        path.write_text(json.dumps({"after": {"recall": reading.to_json()}}, indent=2))
    with finishing(folder, "localization.parquet"):
        localized(folder)
    return folder


def test_provenance(tmp_path: Path) -> None:
    attack(Kind(run_folder(tmp_path) / NAME, lambda p: read_provenance(p.parent), same=lambda a, b: a == b))


def test_provenance_of_earlier_versions(tmp_path: Path) -> None:
    """Without a seal it may say anything, but only in its form."""
    path = tmp_path / NAME
    path.write_text(json.dumps(Provenance.of_call("loka run", {"a": [1]}, seed=0, digests={"c": "d"}).to_json()))
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "files"}))
    attack(Kind(path, lambda p: read_provenance(p.parent)))


def test_readings(tmp_path: Path) -> None:
    attack(Kind(run_folder(tmp_path) / "readings.json", read_readings))


@pytest.mark.parametrize("name", ["readings.json", "localization.parquet"])
def test_what_a_run_has_finished(tmp_path: Path, name: str) -> None:
    """Whoever opens the folder again is told of any change at all."""

    def opened(path: Path) -> RunFolder | None:
        check_files(path.parent)
        return RunFolder.read(path.parent) if path.read_bytes() != whole else None

    path = run_folder(tmp_path) / name
    whole = path.read_bytes()
    attack(Kind(path, opened, same=lambda found, _: found is None))
