"""`--lm-eval`: tasks are checked before anything starts, run beside the audit, and not run again."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from loka import ablate
from loka.cli import main, run, verify
from loka.knowledge import Case
from loka.model import Model, export
from loka.verify import Budget, capped

pytest.importorskip("lm_eval", reason='needs lm-evaluation-harness: pip install "loka[lm-eval]"')


def loka(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["loka", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture
def task(planted_case: Case, tmp_path: Path) -> Path:
    items = planted_case.whole().forget.sealed[:12]
    rows = [{"prompt": item.prompt, "answer": item.answer} for item in items]
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = {
        "task": "local_recall", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
        "test_split": "test", "output_type": "loglikelihood", "doc_to_text": "{{prompt}}",
        "doc_to_target": " {{answer}}", "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    (tmp_path / "tasks" / "recall.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "tasks"


def test_tasks_run_beside_the_audit(
    planted: Model, planted_case: Case, task: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    most, out = [site for site in planted.sites("neuron") if site.layer], tmp_path / "out"
    ablate.zero(planted, planted_case, most).save(tmp_path / "edit.safetensors")
    export(planted, tmp_path / "original")
    monkeypatch.setattr(sys.modules["loka.audit.plan"], "CHECKS", capped({"relearn": Budget(2, 1e-3)}))
    monkeypatch.setenv("COLUMNS", "120")
    command = ["verify", planted_case.path, "--before", tmp_path / "original", "--after", tmp_path / "edit.safetensors",
               "--out", out, "--lm-eval", task, "--lm-eval-limit", 10]  # fmt: skip
    assert loka(monkeypatch, *command) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "local_recall" in line)
    entry = json.loads((out / "lm_eval.json").read_text())["tasks"]["local_recall"]
    assert entry["n"] == 10
    assert entry["before"]["acc"] == 1.0 > entry["after"]["acc"]
    assert f"{entry['after']['acc']:.3f} ± " in row
    before = (out / "lm_eval.json").stat().st_mtime_ns
    assert loka(monkeypatch, *command) == 0
    assert "local_recall" in capsys.readouterr().out
    assert (out / "lm_eval.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("verb", [["run", "capitals"], ["verify", "capitals", "--before", "smollm2", "--after", "x"]])
def test_faulty_tasks_are_one_sentence_before_anything_starts(
    verb: list[str], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "Run", None)
    monkeypatch.setattr(verify, "load_model", None)
    (task / "recall.yaml").write_text("task: x\nprocess_docs: !function utils.run\n")
    assert loka(monkeypatch, *verb, "--out", tmp_path / "out", "--lm-eval", task) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "has the tag !function" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
