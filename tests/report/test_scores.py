"""The report's tables of benchmarks and of tasks of lm-evaluation-harness."""

import re
from pathlib import Path
from typing import Any

import pytest

from loka import UserError, report
from loka._util.files import write_json
from loka.report.formats import MISSING
from loka.report.scores import benchmark_tables, task_scores
from loka.verify import Summary, judge, make_reading, scorecard
from loka.verify.benchmarks import BENCHMARKS, BenchmarkNumbers

TOFU = {"model_utility": 0.65432, "forget_quality": 1e-9, "rouge_forget": 0.25}
MUSE = {"verbmem_forget": 0.5, "knowmem_forget": 0.125, "privleak": -98.76, "knowmem_retain": None}


def folder(path: Path, **numbers: dict[str, float | None]) -> Path:
    """A run folder whose verdict has these benchmarks."""
    details = {name: BenchmarkNumbers(values).to_json() for name, values in numbers.items()}
    found = {
        "recall": make_reading("recall", {"forget": {"a/b": 1.0}, "twins": {"a/x": 0.0, "a/y": 0.0}}, "."),
        "benchmark": make_reading("benchmark", {"forget": {"a/b": 1.0}}, "Numbers.", details=details),
    }
    verdict = judge(dict.fromkeys(("before", "after"), found), scorecard=scorecard(1.0, 1.0, None), summary=Summary())
    write_json(path / "verdict.json", verdict.to_json({}))
    return path


def page(path: Path) -> str:
    return report.write(path).read_text(encoding="utf-8")


def rows(html: str) -> dict[str, list[str]]:
    """The cells of every row, by its name."""
    found = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', html, re.DOTALL)
    return {
        name: [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?>(.*?)</td>", rest)] for name, rest in found
    }


def test_a_benchmarks_numbers_are_a_table(tmp_path: Path) -> None:
    html = page(folder(tmp_path, tofu=TOFU, muse=MUSE))
    found = rows(html)
    assert found["model utility"] == ["0.654", "0.654"]
    assert found["forget quality (p)"] == ["&lt; 0.001", "&lt; 0.001"]
    assert found["ROUGE Forget"] == ["0.250", "0.250"]
    assert found["Prob. Retain"] == [MISSING, MISSING]
    assert found["privacy leakage (%)"] == ["-98.8", "-98.8"]
    assert found["knowledge memorization, retain"] == [MISSING, MISSING]
    assert html.index("TOFU, on the items") < html.index("More of TOFU's numbers") < html.index("MUSE, on the items")
    assert "WMDP" not in html


def test_every_label_is_in_its_table() -> None:
    for name, row in BENCHMARKS.items():
        (table,) = benchmark_tables({"benchmarks": {name: {"after": {}}}})
        assert {s.name for s in (*table.scores, *table.more)} == set(row.labels.values())
        assert {s.before for s in table.scores} == {MISSING}
    assert benchmark_tables({}) == []


def test_task_scores_are_a_table(tmp_path: Path) -> None:
    tasks = {
        "arc <b>": {"before": {"acc": 0.5, "old": 1}, "after": {"acc": 0.4375, "new": 2.0}, "n": 2376},
        "mmlu": {"before": {"acc": None}, "after": {"acc": 0.25}, "n": 10, "version": "1"},
    }
    assert "As others measure it" not in page(folder(tmp_path))
    write_json(tmp_path / "lm_eval.json", {"tasks": tasks, "digests": {}})
    html = page(tmp_path)
    assert "As others measure it" in html
    assert "arc <b>" not in html
    assert rows(html)["arc &lt;b&gt;"] == ["new", MISSING, "2.000", MISSING, "2,376"]
    assert re.search(
        r"<td>acc</td><td class=.n.>0.500</td>\s*<td class=.n own.>0.438</td><td class=.n.>-0.062</td>", html
    )
    assert rows(html)["mmlu"] == ["acc", MISSING, "0.250", MISSING, "10"]


@pytest.mark.parametrize("content", [[], {}, {"tasks": []}, {"tasks": {"a": {"before": {}}}}, {"tasks": {"a": 3}},
                                     {"tasks": {"a": {"before": {"acc": "x"}, "after": {}, "n": 1}}}])  # fmt: skip
def test_a_broken_file_of_task_scores_is_named(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "lm_eval.json", content)
    with pytest.raises(UserError, match=r"lm_eval.json' is not a file of task scores"):
        task_scores(tmp_path)
    folder(tmp_path)
    with pytest.raises(UserError, match="delete it, and run the tasks again"):
        page(tmp_path)
