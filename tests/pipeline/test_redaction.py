"""A redacted folder has no word of an item, gives the numbers of a plain one, and resumes with the case at hand."""

import dataclasses
import json
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

from loka import LokaError, UserError, ablate, audit, plant, report
from loka._util import table
from loka._util.ledger import finishing
from loka._util.provenance import Provenance
from loka.audit.store import FolderStore
from loka.cli import main
from loka.knowledge import Case, Item, Passage, Redactor, case, redaction_key, redactor_of
from loka.model import Edit, Model, Site, export
from loka.pipeline import Invention, Teaching
from loka.pipeline.recipe import Recipe
from loka.pipeline.run import Run, run
from loka.verify import CHECKS

BYTES = bytes(range(32))
RECIPE = Recipe(sites=20, config=ablate.TrainingConfig(steps=3, lr=5e-3, retain_rows=16))


@pytest.fixture(autouse=True, scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("keys") / "own" / "redaction.key"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOKA_REDACTION_KEY", str(path))
        yield path


def items_of(case: Case) -> list[Item]:
    parts = (case.forget, case.retain, case.twins, case.holdout)
    return [i for part in parts for i in (*part.working, *part.sealed)] + list(case.unknown)


def words_of(case: Case) -> set[str]:
    """Every word of a subject or an answer; the words of prompts are those of any prose."""
    texts = {text for i in items_of(case) for text in (i.subject, *i.answers, *i.foils)}
    return {word.casefold() for text in texts for word in re.findall(r"\w+", text) if len(word) > 1}


def all_text(folder: Path) -> dict[str, str]:
    """What every file of a folder says, and the headers of edits and tables; pictures and weights are bytes."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                found[name] = json.dumps(file.metadata())
        elif path.suffix == ".parquet":
            frame, metadata = table.read(path, "localization", "`loka locate`")
            found[name] = frame.to_csv() + json.dumps(metadata)
        elif path.is_file() and path.suffix != ".png":
            found[name] = path.read_text(encoding="utf-8")
    return found


def leaks(folder: Path, case: Case) -> list[str]:
    """The files with a word of an item, or with one of its prompts or templates."""
    words = words_of(case)
    prompts = {str(p) for i in items_of(case) for p in i.prompts}
    prompts |= {t for r in case.spec.relations.values() for t in (*r.working, *r.sealed, *r.paraphrases)}
    found = []
    for name, text in all_text(folder).items():
        found += [f"{name}: {w}" for w in sorted(set(re.findall(r"[^\W_]+", text.casefold())) & words)]
        found += [f"{name}: {p}" for p in sorted(prompts) if p in text]
    return found


@pytest.fixture(scope="module")
def both(taught: Model, small_case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run twice, in the open and redacted."""
    command, folder = "loka run cases/Bedofan.yaml --model m", tmp_path_factory.mktemp("both")
    for name, redact in (("plain", False), ("hidden", True)):
        run(taught, small_case, out=folder / name, recipe=RECIPE, redact=redact, command=command)
    return folder / "plain", folder / "hidden"


def test_a_redacted_run_has_no_word_of_an_item_and_the_same_numbers(
    both: tuple[Path, Path], planted: Model, small_case: Case
) -> None:
    plain, hidden = both
    known = small_case.on(planted)
    assert {name.split(":")[0] for name in leaks(plain, known)} >= {"case.yaml", "readings.json", "provenance.json"}
    assert leaks(hidden, known) == []
    assert sorted(all_text(plain)) == sorted([*all_text(hidden), "neutral_1.txt", "neutral_2.txt"])
    verdicts = [json.loads((folder / "verdict.json").read_text()) for folder in both]
    for verdict in verdicts:
        del verdict["digests"]
    assert Redactor(known).hide_verdict(verdicts[0]) == verdicts[1]
    a, b = (Edit.load(folder / "edit.safetensors") for folder in both)
    assert a.digest() == b.digest()
    samples = [json.loads((f / "readings.json").read_text())["after"]["recall"]["samples"]["forget"] for f in both]
    assert list(samples[0].values()) == list(samples[1].values())
    assert all(re.fullmatch(r"item \d+ \[[0-9a-f]{16}\]", label) for label in samples[1])
    case = yaml.safe_load((hidden / "case.yaml").read_text())
    assert set(samples[1]) <= set(case["items"]["forget"])
    for folder in both:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_redacted_run_resumes_with_its_case_alone(
    both: tuple[Path, Path], planted: Model, small_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, hidden = both[0], shutil.copytree(both[1], tmp_path / "hidden")
    before = {p.name: p.read_bytes() for p in hidden.iterdir() if p.is_file()}
    (hidden / "verdict.json").unlink()
    readings = json.loads((hidden / "readings.json").read_text())
    del readings["after"]["relearn"]
    with finishing(hidden, "readings.json") as path:  # as if it had been killed after the other checks
        path.write_text(json.dumps(readings))
    run(planted, small_case, out=hidden, recipe=RECIPE)  # a redacted folder stays redacted
    assert leaks(hidden, small_case.on(planted)) == []
    for name in ("readings.json", "verdict.json", "case.yaml", "edit.safetensors"):
        assert (hidden / name).read_bytes() == before[name], name
    with pytest.raises(UserError, match="is redacted and has no text of its case; give the case file"):
        Run(hidden, model=planted)
    with pytest.raises(UserError, match="was begun without --redact"):
        Run(plain, model=planted, case=small_case, redact=True)
    monkeypatch.setenv("LOKA_REDACTION_KEY", str(tmp_path / "another.key"))
    with pytest.raises(UserError, match="is a run of another case"):
        Run(hidden, model=planted, case=small_case)


def test_a_redacted_audit_keeps_the_texts_of_an_edit_to_itself(
    planted: Model, small_case: Case, tmp_path: Path
) -> None:
    """The header of an edit that writes new answers names subjects and answers."""
    known = small_case.on(planted)
    answers = {f.subject: f.foils[0] for f in known.forget.working[:2]}
    config = ablate.RewriteConfig(steps=2, contexts=0, lr=1e-6, weight_decay=0.0)
    with pytest.warns(UserWarning, match="new answers are written"):
        edit = ablate.rome(planted, known, config=config, answers=answers)
    redactor = Redactor(known, BYTES)
    hidden = redactor.hide_edit(edit)
    hidden.save(tmp_path / "edit.safetensors")
    assert leaks(tmp_path, known) == []
    assert redactor.show_edit(Edit.load(tmp_path / "edit.safetensors")).record == edit.record
    store = FolderStore(tmp_path / "audit", planted, edit, redactor.case, redactor)
    verdict = audit(planted, edit, redactor.case, store=store)
    again = FolderStore(tmp_path / "audit", planted, edit, redactor.case, redactor)
    assert again.readings["after"]["paraphrase"] == store.readings["after"]["paraphrase"]
    assert set(again.edits) == set(store.edits)
    assert verdict.outcome
    assert leaks(tmp_path / "audit", known) == []


@pytest.mark.parametrize("kind", ["passage", "choice"])
def test_items_of_every_kind_are_redacted(kind: str, planted: Model, kinds: Any, tmp_path: Path) -> None:
    spec = kinds.write(tmp_path / "case", kind, sizes=(8, 12, 8))
    known, out = spec.on(planted), tmp_path / "audit"
    redactor = Redactor(known, BYTES)
    edit = ablate.zero(planted, known, [Site(1, "neuron", 3)])
    store = FolderStore(out, planted, edit, redactor.case, redactor)
    few = [check for check in CHECKS if check.name in ("recall", "paraphrase", "extraction")]
    verdict = audit(planted, edit, redactor.case, store=store, checks=few)
    (out / "verdict.json").write_text(json.dumps(redactor.hide_verdict(verdict.to_json({}))))
    made = Provenance.of_call("loka verify", {"redacted": True}, seed=0, digests={})
    dataclasses.replace(made, files=None).write(out)
    report.write(out)
    assert leaks(out, known) == []


def test_the_command_verify_redacts(
    planted: Model, kinds: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The subject stands in the name of the case file too, and so in the command that `provenance.json` has."""
    spec, out = kinds.write(tmp_path / "about Bedofan", "question", sizes=(8, 12, 8)), tmp_path / "audit"
    known, model = spec.on(planted), export(planted, tmp_path / "model")
    edit = ablate.zero(planted, known, [Site(1, "neuron", 3)]).save(tmp_path / "edit.safetensors")
    files = ["--before", str(model), "--after", str(edit), "--out", str(out)]
    command = ["loka", "verify", str(spec.path), *files]
    for more in (["--redact"], []):  # a redacted folder stays redacted
        monkeypatch.setattr(sys, "argv", [*command, *more])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        assert leaks(out, known) == []
    assert (out / "report.html").exists()
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_a_redacted_plant_gives_its_case_to_another_file(planted: Model, planted_case: Case, tmp_path: Path) -> None:
    out, file = tmp_path / "made", tmp_path / "own" / "case.yaml"
    invention, teaching = Invention(6, 4, 6), Teaching(steps=200, lr=3e-3)
    made = plant(planted, planted_case, out=out, invention=invention, teaching=teaching, case_file=file)
    shutil.rmtree(out / "model")  # its vocabulary and its weights know the facts
    assert leaks(out, made.case.whole()) == []
    assert yaml.safe_load((out / "case.yaml").read_text())["items"]["forget"]
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    for wrong in (file, tmp_path / "new" / "case.yaml"):
        with pytest.raises(UserError, match="exists or is in the redacted folder"):
            plant(planted, planted_case, out=tmp_path / "new", case_file=wrong)
    with pytest.raises(LokaError, match="after 2 steps"):
        plant(
            planted, planted_case, out=tmp_path / "new", invention=invention, teaching=Teaching(steps=2),
            case_file=tmp_path / "own" / "two.yaml",
        )  # fmt: skip
    assert not (tmp_path / "own" / "two.yaml").exists()


def test_labels_need_the_key(planted: Model, small_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "own" / "redaction.key"
    monkeypatch.setenv("LOKA_REDACTION_KEY", str(key))
    known = small_case.on(planted)
    subject = known.forget.working[0].subject
    one, other = Redactor(known, BYTES).hide(subject), Redactor(known, bytes(32)).hide(subject)
    assert one != other
    assert Redactor(known, BYTES).show(one) == subject
    made = redaction_key()
    assert redaction_key() == made == key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert redactor_of(tmp_path, known, redact=False) is None
    key.write_bytes(b"short")
    with pytest.raises(UserError, match="has 5 bytes, not 32"):
        redaction_key()


def test_answers_that_begin_with_those_of_an_item_are_hidden(files: Any, tmp_path: Path) -> None:
    """No item of the case is about Ede, whose answers are compared with what a model says about Aba."""
    relations = {"town": {"working": ["{} is"], "sealed": ["it is {},"],
                          "facts": {"Aba": "New", "Ede": ["York", "New Amsterdam"]}}}  # fmt: skip
    path = files.write(tmp_path, relations=relations, forget={"town": ["Aba"]}, retain={}, twins={})
    hidden = json.dumps(Redactor(case(path).whole(), BYTES).hide(["New Amsterdam", "They say New Amsterdam"]))
    assert "Amsterdam" not in hidden


def test_the_place_of_an_item_is_no_text_and_a_number_that_is_a_subject_is() -> None:
    """A step of a curve may be the number of a place in a small set."""
    records = [Passage(f"the claim of {n} was paid", subject="4711" if n == "one" else "") for n in ("one", "two")]
    redactor = Redactor(Case.of(records), BYTES)
    assert redactor.hide({"1": 0.5, "2": 0.25}) == {"1": 0.5, "2": 0.25}
    assert "4711" not in json.dumps(redactor.hide({"4711": 1}))
    assert not {"forget_passage/1", "4711"} & set(redactor.hide({"forget_passage/1": 1}))
