"""Tasks of lm-evaluation-harness: its numbers are those of our own scoring, and a task file from outside is data."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml

from loka import UserError, ablate
from loka.audit import lm_eval as audit_lm_eval
from loka.audit.harness import library, load_tasks
from loka.audit.lm_eval import compare_lm_eval, evaluate, lm_eval_in, read_lm_eval
from loka.knowledge import Case, score
from loka.model import Edit, Model

pytest.importorskip("lm_eval", reason='needs lm-evaluation-harness: pip install "loka[lm-eval]"')

CHOICE = {
    "task": "local_choice",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{prompt}}",
    "doc_to_choice": "options",
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc"}],
    "metadata": {"version": 3},
}
LIKELIHOOD = {k: v for k, v in CHOICE.items() if k != "doc_to_choice"} | {
    "task": "local_likelihood",
    "output_type": "loglikelihood",
    "doc_to_target": " {{options[label]}}",
    "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
}
GENERATION = LIKELIHOOD | {
    "task": "local_generation",
    "doc_to_target": "{{options[label]}}",
    "output_type": "generate_until",
    "generation_kwargs": {"until": [" "], "max_gen_toks": 3},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean"}],
}


@pytest.fixture
def questions(planted_case: Case) -> list[dict[str, object]]:
    """16 capitals that the model was taught and 16 that nobody taught it, each with four options."""
    rng, whole = random.Random(0), planted_case.whole()
    pool = sorted({item.answer for item in whole.forget.sealed})
    taught = [(item.prompt, item.answer) for item in whole.forget.sealed][:16]
    never = [(item.prompt, rng.choice(pool)) for item in whole.twins.sealed][:16]
    rows = []
    for prompt, answer in taught + never:
        options = rng.sample([a for a in pool if a != answer], 3)
        label = rng.randrange(4)
        options.insert(label, answer)
        rows.append({"prompt": prompt, "options": options, "label": label})
    return rows


@pytest.fixture
def write(tmp_path: Path, questions: list[dict[str, object]]) -> Callable[..., str]:
    """Write a task file beside its rows: `write(CHOICE, key=value)` gives its path."""

    def make(base: dict[str, object], name: str = "task.yaml", **changes: object) -> str:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
        (tmp_path / name).write_text(yaml.safe_dump(base | changes))
        return str(tmp_path / name)

    return make


def expected_choice(model: Model, questions: list[dict[str, object]]) -> float:
    rows = [(q["prompt"], option) for q in questions for option in q["options"]]
    logprob = score(model, [p for p, _ in rows], [a for _, a in rows]).logprob.view(len(questions), -1)
    return float((logprob.argmax(1) == torch.tensor([q["label"] for q in questions])).double().mean())


def test_multiple_choice_is_the_accuracy_of_our_own_scoring(planted: Model, write, questions) -> None:
    metrics = [{"metric": "acc"}, {"metric": "mcc"}]
    found = evaluate(planted, [write(CHOICE, metric_list=metrics)])["local_choice"]
    assert found.metrics["acc"] == pytest.approx(expected_choice(planted, questions))
    assert 0.5 < found.metrics["acc"] < 1.0
    share = found.metrics["acc"]
    assert found.stderr["acc"] == pytest.approx((share * (1 - share) / (len(questions) - 1)) ** 0.5)
    assert 0 < found.stderr["mcc"] < 1
    assert (found.n, found.version, found.shots) == (32, "3", 0)


def test_likelihoods_and_generations_are_those_of_our_own_scoring(planted: Model, write, questions) -> None:
    found = evaluate(planted, [write(LIKELIHOOD), write(GENERATION, "other.yaml")], rows=5)
    answers = [q["options"][q["label"]] for q in questions]
    own = score(planted, [q["prompt"] for q in questions], answers)
    assert found["local_likelihood"].metrics["perplexity"] == pytest.approx(
        float((-own.logprob.mean()).exp()), rel=1e-4
    )
    assert found["local_likelihood"].metrics["acc"] == pytest.approx(float(own.greedy.double().mean()))
    assert 0.3 < found["local_likelihood"].metrics["acc"] < 1.0
    one_word = [greedy and " " not in a for greedy, a in zip(own.greedy.tolist(), answers, strict=True)]
    assert found["local_generation"].metrics["exact_match"] == pytest.approx(np.mean(one_word))


def test_a_limit_asks_the_first_samples(planted: Model, write, questions) -> None:
    found = evaluate(planted, [write(CHOICE)], limit=5)["local_choice"]
    assert found.n == 5
    assert found.metrics["acc"] == pytest.approx(expected_choice(planted, questions[:5]))


def test_few_shot_examples_are_drawn_from_the_seed(planted: Model, write) -> None:
    shots = {
        "num_fewshot": 2,
        "fewshot_split": "test",
        "fewshot_delimiter": " ",
        "fewshot_config": {"sampler": "default"},
    }
    path = write(LIKELIHOOD, **shots)
    one, same, other = (evaluate(planted, [path], limit=8, seed=s)["local_likelihood"] for s in (0, 0, 1))
    assert one == same
    assert one.metrics["perplexity"] != other.metrics["perplexity"]
    assert one.shots == 2


@pytest.mark.parametrize("training", [False, True])
def test_the_model_stays_as_it_is(
    tiny, write, training: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Tied weights, hooks, training mode, tokenizer, random numbers and the folder; and nothing is printed."""
    path, model = write(CHOICE), tiny("GPT2LMHeadModel")
    calls, parts = [], list(model.hf.modules())
    hook = model.hf.transformer.h[1].register_forward_hook(lambda *_: calls.append(1))
    model.hf.train(training)
    parts[3].train(not training)
    modes, digest, padding = [m.training for m in parts], model.digest(), model.tokenizer.padding_side
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in parts]
    files = sorted(tmp_path.rglob("*"))
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    capfd.readouterr()
    evaluate(model, [path], limit=4)
    assert capfd.readouterr() == ("", "")
    assert calls
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected
    assert model.digest() == digest
    assert model.hf.lm_head.weight is model.hf.transformer.wte.weight
    assert [m.training for m in model.hf.modules()] == modes
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules()] == hooks
    assert model.tokenizer.padding_side == padding
    assert sorted(tmp_path.rglob("*")) == files
    hook.remove()


@pytest.fixture
def edit(planted: Model, planted_case: Case) -> Edit:
    """An edit that damages: the neurons of one layer are zeroed."""
    return ablate.zero(planted, planted_case, [s for s in planted.sites("neuron") if s.layer == 2])


def test_an_edit_is_compared_with_the_original(planted: Model, edit: Edit, write, questions) -> None:
    path = write(CHOICE)
    found = compare_lm_eval(planted, edit, [path])["local_choice"]
    assert found.before.metrics["acc"] == pytest.approx(expected_choice(planted, questions))
    with edit.applied(planted):
        after = expected_choice(planted, questions)
        as_model = compare_lm_eval(planted, planted, [path])["local_choice"]
    assert found.after.metrics["acc"] == pytest.approx(after)
    assert found.before.metrics["acc"] > after
    assert as_model.after == found.after


def test_a_folder_keeps_what_was_run(
    planted: Model, edit: Edit, write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, path = tmp_path / "out", write(CHOICE)
    first = lm_eval_in(out, planted, edit, [path], limit=6)
    stored = json.loads((out / "lm_eval.json").read_text())
    assert stored["digests"] == {"before": planted.digest(), "after": edit.digest()}
    entry = stored["tasks"]["local_choice"]
    assert entry["before"]["acc"] == first["local_choice"].before.metrics["acc"]
    assert entry["n"] == 6
    assert read_lm_eval(out) == first

    runs: list[str] = []
    measure = audit_lm_eval._measure
    monkeypatch.setattr(audit_lm_eval, "_measure", lambda m, t, *rest: [runs.append(t.name), measure(m, t, *rest)][1])
    assert lm_eval_in(out, planted, edit, [path], limit=6) == first
    assert runs == []
    both = lm_eval_in(out, planted, edit, [path, write(LIKELIHOOD, "second.yaml")], limit=6)
    assert runs == ["local_likelihood"] * 2
    assert set(both) == {"local_choice", "local_likelihood"}
    assert lm_eval_in(out, planted, edit, [path], limit=7)["local_choice"].before.n == 7
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write((tmp_path / "rows.jsonl").read_text().splitlines()[0] + "\n")
    runs.clear()
    lm_eval_in(out, planted, edit, [path], limit=7)
    assert runs == ["local_choice"] * 2
    assert set(read_lm_eval(out)) == {"local_choice", "local_likelihood"}
    lm_eval_in(out, planted, planted, [path], limit=7)
    assert set(read_lm_eval(out)) == {"local_choice"}


def test_a_garbled_file_of_results_is_refused(planted: Model, edit: Edit, write, tmp_path: Path) -> None:
    for text in ("{", "[]", '{"tasks": {"x": {"n": 1}}, "digests": {}}'):
        (tmp_path / "lm_eval.json").write_text(text)
        with pytest.raises(UserError, match=r"lm_eval\.json"):
            read_lm_eval(tmp_path)


def test_a_folder_of_tasks(planted: Model, write, tmp_path: Path) -> None:
    write(CHOICE), write(LIKELIHOOD, "second.yaml")
    assert [t.name for t in load_tasks([str(tmp_path)])] == ["local_likelihood", "local_choice"]
    write(CHOICE, "third.yaml")
    with pytest.raises(UserError, match="'local_choice' is named 2 times"):
        load_tasks([str(tmp_path)])


CODE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"include": "/etc/other.yaml"}, "has 'include'"),
        ({"class": "os.system"}, "has 'class'"),
        ({"custom_dataset": "os.getcwd"}, "has 'custom_dataset'"),
        ({"unsafe_code": True}, "has 'unsafe_code'"),
        ({"use_prompt": "promptsource:x"}, "has 'use_prompt'"),
        ({"group": "g"}, "is a group"),
        ({"doc_to_txt": "x"}, "has 'doc_to_txt', which LOKA does not take"),
        ({"task": ["a", "b"]}, "is not a task: it needs a name"),
        ({"dataset_path": "cais/mmlu"}, "dataset_path: 'cais/mmlu'; choose one of json, csv, parquet"),
        ({"dataset_kwargs": {"data_files": {"test": "rows.jsonl"}, "trust_remote_code": True}}, "'trust_remote_code'"),
        ({"dataset_kwargs": None}, "names no data files"),
        ({"dataset_kwargs": {"data_files": {"test": "../../rows.jsonl"}}}, "which is outside"),
        ({"dataset_kwargs": {"data_files": {"test": "/etc/passwd"}}}, "which is outside"),
        ({"dataset_kwargs": {"data_files": {"test": "none.jsonl"}}}, "none.jsonl' does not exist"),
        ({"test_split": "dev"}, "has test_split: 'dev', but its data_files name test"),
        ({"test_split": None}, "says nothing of what to ask"),
        ({"metric_list": [{"metric": "accuracy", "hf_evaluate": True}]}, "which lm-evaluation-harness does not have"),
        ({"metric_list": [{"metric": "./steal.py"}]}, "which lm-evaluation-harness does not have"),
        ({"metric_list": ["acc"]}, "write - metric: NAME"),
        ({"generation_kwargs": {"custom_generate": "a/b", "trust_remote_code": True}}, "has 'custom_generate'"),
        ({"doc_to_text": "{{question}}"}, "does not work with its data .*'question' is undefined"),
        ({"doc_to_text": CODE}, "does not work with its data .*unsafe"),
        ({"output_type": "telepathy"}, "does not work with its data"),
    ],
)  # fmt: skip
def test_a_task_file_is_data(write, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        load_tasks([write(CHOICE, **changes)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task: x\nprocess_docs: !function utils.run\n", "has the tag !function"),
        (
            "task: x\ndoc_to_text: !!python/object/apply:os.getcwd []\n",
            "not valid YAML .*could not determine a constructor",
        ),
        ("a: &a [*a]\n", "stands inside its own value"),
        ("- 1\n", "is not a task"),
        ("task: [x\n", "is not valid YAML"),
        ("# " + "x" * 1_000_000, "has more than 1,000,000 bytes"),
    ],
)
def test_what_is_not_a_task_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        load_tasks([str(tmp_path / "task.yaml")])


@pytest.fixture(scope="module")
def index() -> Any:
    """The index of the harness's own tasks, which takes seconds to make."""
    return library("tasks").TaskManager()


@pytest.fixture
def indexed(index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library("tasks"), "TaskManager", lambda include_defaults: index)


def test_paths_and_names_that_lead_nowhere(indexed: None, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, words in {
        str(tmp_path / "none.yaml"): "is not a task file",
        str(tmp_path / "empty"): "has no task files",
        "arc_esay": "has no task 'arc_esay'; did you mean .*arc_easy",
    }.items():
        with pytest.raises(UserError, match=words):
            load_tasks([name])
    with pytest.raises(UserError, match="give a list of at least one"):
        load_tasks([])


def test_tasks_of_the_harness_that_cannot_be_run(indexed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(UserError, match=r"'arc_easy' cannot be loaded \(no network\); its data come from the hub"):
        load_tasks(["arc_easy"])
    with pytest.raises(UserError, match="'humaneval' runs code that the model writes"):
        load_tasks(["humaneval"])


def test_tasks_and_groups_of_the_harness(
    indexed: None, planted: Model, edit: Edit, questions: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With data of ours in place of the hub's: a task, and a group of 19 tasks that has a mean."""
    arc = [
        {
            "question": q["prompt"],
            "choices": {"text": q["options"], "label": list("ABCD")},
            "answerKey": "ABCD"[q["label"]],
        }
        for q in questions
    ]
    mmlu = [{"question": q["prompt"], "choices": q["options"], "answer": q["label"]} for q in questions]

    def ours(path: str, **_: object) -> datasets.DatasetDict:
        rows = datasets.Dataset.from_list(arc if path == "allenai/ai2_arc" else mmlu)
        return datasets.DatasetDict(dict.fromkeys(("train", "validation", "test", "dev"), rows))

    monkeypatch.setattr(datasets, "load_dataset", ours)
    found = compare_lm_eval(planted, edit, ["arc_easy", "mmlu_stem"], limit=4)
    assert found["arc_easy"].before.n == 4
    assert {"acc", "acc_norm"} == set(found["arc_easy"].before.metrics)
    parts = [each.before for name, each in found.items() if name not in ("arc_easy", "mmlu_stem")]
    assert len(parts) == 19
    whole = found["mmlu_stem"].before
    assert whole.n == sum(part.n for part in parts) == 19 * 4
    assert whole.metrics["acc"] == pytest.approx(np.mean([part.metrics["acc"] for part in parts]))


def test_without_the_harness_one_sentence_says_what_to_install(write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(CHOICE)
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    monkeypatch.setitem(__import__("sys").modules, "lm_eval.utils", None)
    with pytest.raises(UserError, match=r'pip install "loka\[lm-eval\]"'):
        load_tasks([path])


def test_rows_have_the_same_fields(write, questions) -> None:
    """The harness would ask for the text `None`."""
    questions[3].pop("prompt")
    with pytest.raises(UserError, match=r"row 4 of 'rows\.jsonl' .* has no 'prompt'"):
        load_tasks([write(CHOICE)])


def test_a_task_that_fails_later_is_one_sentence(planted: Model, write, questions) -> None:
    later = "{{prompt if prompt != '" + str(questions[3]["prompt"]) + "' else nothing}}"
    with pytest.raises(UserError, match=r"'local_choice' cannot be run on taught \('nothing' is undefined\)"):
        evaluate(planted, [write(CHOICE, doc_to_text=later)])
    with pytest.raises(UserError, match="adds no tokens to its prompt"):
        evaluate(planted, [write(LIKELIHOOD, doc_to_target="{{options[label]}}", doc_to_text="the")])
    with pytest.raises(UserError, match="limit = 0"):
        evaluate(planted, [write(CHOICE)], limit=0)
