"""The benchmarks' metrics in closed form, and their numbers for small cases, computed again from logits."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from loka import verify
from loka._util.errors import UserError
from loka.knowledge import Case, Split, case
from loka.model import Model, wrap
from loka.verify import Setting, Summary, make_reading, scorecard
from loka.verify.benchmarks import (
    benchmark,
    benchmark_cost,
    benchmarks_of,
    from_benchmark,
    makes,
    numbers_of,
    tofu_quality,
)
from loka.verify.metrics.tofu import SETS


def test_forget_quality_is_the_exact_test() -> None:
    apart = verify.tofu_forget_quality([1, 2, 3], [4, 5, 6])
    assert apart.distance == 1
    assert apart.p == pytest.approx(2 / math.comb(6, 3))
    assert verify.tofu_forget_quality([1, 2, 3], [3, 1, 2]).p == 1
    inverses = verify.tofu_forget_quality([1 / 1, 1 / 2, 1 / 3], [1 / 4, 1 / 5, 1 / 6])
    assert inverses == apart


def test_the_peers_epsilon_makes_ties() -> None:
    small, smaller = [1e-30, 1e-31, 1e-32], [1e-33, 1e-34, 1e-35]
    assert verify.tofu_forget_quality(small, smaller).p == pytest.approx(0.1)
    assert verify.tofu_forget_quality(small, smaller, convention="open-unlearning").p == 1


def test_model_utility_is_a_harmonic_mean() -> None:
    assert verify.tofu_model_utility([0.5, 0.25]) == pytest.approx(1 / 3)
    assert verify.tofu_model_utility([0.5, 0.0]) == 0
    for values in ([], [0.5, -0.1]):
        with pytest.raises(UserError, match="at least one number, and none below zero"):
            verify.tofu_model_utility(values)


def log(correct: float, wrong: list[float], rouge: float) -> dict[str, list]:
    losses = [-math.log(p) for p in wrong]
    return {
        "avg_gt_loss": [-math.log(correct)] * 3,
        "avg_paraphrased_loss": [-math.log(correct / 2)] * 3,
        "average_perturb_loss": [losses] * 3,
        "rougeL_recall": [rouge] * 3,
    }


def test_the_report_follows_the_paper_and_by_convention_the_code() -> None:
    logs = {file: log(0.8, [0.1, 0.3], 0.5) for file in SETS.values()}
    found = verify.tofu_report(logs)
    assert found.forget_quality is None
    assert found.values["Prob. Real World"] == pytest.approx(0.8 / 1.2)
    assert found.values["Prob. Retain"] == pytest.approx(0.8)
    assert found.values["Truth Ratio Retain"] == pytest.approx(1 - 0.2 / 0.4)
    assert found.values["Truth Ratio Forget"] == pytest.approx(0.2 / 0.4)
    assert found.model_utility == pytest.approx(9 / (2 / (0.8 / 1.2) + 1 / 0.8 + 3 / 0.5 + 3 / 0.5))
    theirs = verify.tofu_report(logs, logs, convention="tofu")
    assert theirs.values["Truth Ratio Forget"] == pytest.approx(math.sqrt(0.03) / 0.4)
    assert theirs.forget_quality is not None
    assert theirs.forget_quality.p == 1


def test_a_missing_log_is_named() -> None:
    logs = {file: log(0.8, [0.1], 0.5) for file in SETS.values()}
    with pytest.raises(UserError, match="The logs lack eval_log.json; they need"):
        verify.tofu_report({k: v for k, v in logs.items() if k != "eval_log.json"})
    with pytest.raises(UserError, match="The retain model's logs lack eval_log_forget.json"):
        verify.tofu_report(logs, {})


def test_rouge_recall_is_relative_to_the_truth() -> None:
    found = verify.rouge("The capital is Paris, they were writing", "Paris is the CAPITAL")
    assert found.rouge1_recall == 1
    assert found.rougeL_recall == pytest.approx(2 / 4)  # "the capital"
    assert found.rougeL_f1 == pytest.approx(2 * (2 / 4) * (2 / 7) / (2 / 4 + 2 / 7))
    assert verify.rouge("she writes", "writing").rouge1_recall == 1
    assert verify.rouge("", "Paris") == verify.Rouge(0, 0, 0)


def test_a_generation_ends_at_the_first_stop() -> None:
    assert verify.cut(" Paris.\nQ: and Rome?<end> more", ["<end>", "\nQ:"]) == "Paris."
    assert verify.cut(" Paris ", []) == "Paris"


def test_only_the_leading_prompt_goes() -> None:
    text = "the fox and the fox runs"
    assert verify.without_prompt(text, "the fox") == "and the fox runs"
    assert verify.without_prompt(text, "the fox", convention="open-unlearning") == "and  runs"


def test_privleak_is_positive_where_something_is_left() -> None:
    assert verify.privleak(0.75, 0.5) == verify.privleak(0.75) == pytest.approx(50)
    assert verify.privleak(0.4, 0.5) == pytest.approx(-20)
    assert verify.privleak(0.75, 0.6, convention="muse") == pytest.approx(100 * (0.25 - 0.4) / 0.4)
    ours, theirs = (verify.privleak(0.75, 0.6, convention=c) for c in ("muse", "open-unlearning"))
    assert theirs == pytest.approx(ours)
    assert verify.relative_difference(0.3, 0.0) == math.inf
    assert verify.relative_difference(0.0, 0.0) == 0
    with pytest.raises(UserError, match="stated, muse, open-unlearning"):
        verify.privleak(0.5, convention="mimir")


# The benchmarks' numbers for small cases. Their questions are facts that the small model was taught.

HALF = {"working": 0.5, "sealed": 0.5}


def rows(path: Path, records: Sequence[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path.name


@dataclass(frozen=True)
class Quiz:
    """Numbered questions about taught capitals, and case files made of them."""

    files: Any
    folder: Path

    @property
    def capitals(self) -> list[tuple[str, str]]:
        return list(self.files.base["relations"]["capital"]["facts"].items())

    def answer(self, i: int) -> str:
        return self.capitals[i][1]

    def ask(self, i: int) -> str:
        return f"the capital of {self.capitals[i][0]} is"

    def wrong(self, i: int) -> list[str]:
        return [self.answer(i + 1), self.answer(i + 2)]

    def question(self, i: int, **more: Any) -> dict[str, Any]:
        return {"question": self.ask(i), "answer": self.answer(i), **more}

    def choice(self, i: int) -> dict[str, Any]:
        """The right option is first, second or third in turn."""
        options = [*self.wrong(i)[: i % 3], self.answer(i), *self.wrong(i)[i % 3 :]]
        return {"question": self.ask(i), "choices": options, "answer": i % 3}

    def set(self, name: str, kind: str, format: str, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        source = rows(self.folder / f"{name}.jsonl", list(records))
        return {"kind": kind, "format": format, "source": source} | ({} if kind == "passage" else {"frame": "{}"})

    def case(
        self, sets: dict[str, dict[str, Any]], forget: Sequence[str], twins: Sequence[str] = (), **more: Any
    ) -> Case:
        """A case of these sets, as if a model knew all of it; half of what is not forgotten is sealed."""
        retain = {name: HALF for name in sets if name not in (*forget, *twins)}
        whole = {"relations": {}, "retain": retain, "twins": dict.fromkeys(twins, "all")} | more
        return case(self.files.write(self.folder, sets=sets, forget=dict.fromkeys(forget, "all"), **whole)).whole()

    def tofu(self, *names: str) -> dict[str, dict[str, Any]]:
        """TOFU's four files, or some of them. Two of the forget answers come in other words too."""
        words = {i: {"paraphrased_answer": f"called {self.answer(i)}"} for i in range(2)}
        found = {
            "forget10": [self.question(i, perturbed_answer=self.wrong(i), **words.get(i, {})) for i in range(6)],
            "retain90": [self.question(i, perturbed_answer=self.wrong(i)) for i in range(6, 14)],
            "real_authors": [self.question(i, option1=self.answer(i), option2=self.wrong(i)[0]) for i in range(14, 18)],
            "world_facts": [self.question(i, option1=self.answer(i), option2=self.wrong(i)[0]) for i in range(18, 22)],
        }
        return {n: self.set(n, "question", "tofu", found[n]) for n in names or found}

    def muse(self, *names: str) -> dict[str, dict[str, Any]]:
        """Passages with lead-ins, questions about others to forget and to retain, and passages never taught."""
        never = [
            f"the town that rules {t} is {self.answer(i)}"
            for i, t in enumerate(self.files.base["twins"]["capital"][:4])
        ]
        found = {
            "verbmem": [{"prompt": self.ask(i), "gt": f"{self.answer(i)} and {self.answer(i + 1)}"} for i in range(4)],
            "forget_qa": [self.question(i) for i in range(4, 8)],
            "retain_qa": [self.question(i) for i in range(8, 14)],
            "holdout": [{"text": text} for text in never],
        }
        kinds = {"verbmem": "passage", "holdout": "passage"}
        return {n: self.set(n, kinds.get(n, "question"), "muse", found[n]) for n in names or found}

    def wmdp(self) -> dict[str, dict[str, Any]]:
        return {
            "bio": self.set("bio", "choice", "wmdp", map(self.choice, range(9))),
            "mmlu": self.set("mmlu", "choice", "mmlu", map(self.choice, range(9, 21))),
        }

    def sealed(self, of: Case, name: str) -> list[int]:
        """The numbers of the questions that are sealed to be retained."""
        prompts = [str(i.prompt) for i in of.retain.sealed if i.relation == name]
        return [i for i, (subject, _) in enumerate(self.capitals) for p in prompts if f" {subject} " in p]


@pytest.fixture
def quiz(files: Any, tmp_path: Path) -> Quiz:
    return Quiz(files, tmp_path)


def numbers(reading: Any, make: str, part: str = "values") -> Any:
    return reading.details[make][part]


def logprobs(model: Model, ids: Sequence[int]) -> torch.Tensor:
    """Log-probabilities `[position, vocabulary]` after each token of one row without padding."""
    with torch.no_grad():
        return model.hf(torch.tensor([ids], device=model.device)).logits[0].double().log_softmax(-1).cpu()


def loss(model: Model, prompt: str, answer: str) -> float:
    """The mean loss of the answer's words."""
    head, ids = (model.tokenizer(t)["input_ids"] for t in (prompt, f"{prompt} {answer}"))
    logp = logprobs(model, ids)
    return -float(np.mean([float(logp[i - 1, ids[i]]) for i in range(len(head), len(ids))]))


def said(model: Model, prompt: str, n: int) -> list[str]:
    """The next words, one greedy token after the other, up to the end of the sequence."""
    ids = list(model.tokenizer(prompt)["input_ids"])
    start = len(ids)
    while len(ids) < start + n and model.tokenizer.eos_token_id not in ids:
        ids.append(int(logprobs(model, ids)[-1].argmax()))
    return model.tokenizer.decode(ids[start:], skip_special_tokens=True).lower().split()


def common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    if not (a and b):
        return 0
    return 1 + common(a[1:], b[1:]) if a[0] == b[0] else max(common(a[1:], b), common(a, b[1:]))


def f1(generated: Sequence[str], truth: Sequence[str]) -> float:
    return 2 * common(generated, truth) / (len(generated) + len(truth))


@dataclass(frozen=True)
class ByHand:
    """TOFU's measures by question: the answer's probability, ROUGE-L recall, the truth ratio, the options' sum."""

    probability: np.ndarray
    recall: np.ndarray
    ratio: np.ndarray
    options: np.ndarray

    @classmethod
    def of(cls, model: Model, quiz: Quiz, places: Iterable[int], wrong: int = 2, rephrased: int = 0) -> ByHand:
        out = []
        for i in places:
            own, words = math.exp(-loss(model, quiz.ask(i), quiz.answer(i))), quiz.answer(i).lower().split()
            others = [math.exp(-loss(model, quiz.ask(i), w)) for w in quiz.wrong(i)[:wrong]]
            told = math.exp(-loss(model, quiz.ask(i), f"called {quiz.answer(i)}")) if i < rephrased else own
            recall = common(said(model, quiz.ask(i), len(words) + 4), words) / len(words)
            out.append((own, recall, told / np.mean(others), own + sum(others)))
        return cls(*np.array(out).T)


def test_tofu_from_logits(planted: Model, quiz: Quiz) -> None:
    of = quiz.case(quiz.tofu(), ["forget10"])
    found = benchmark(planted, of)
    forget = ByHand.of(planted, quiz, range(6), rephrased=2)
    retain = ByHand.of(planted, quiz, quiz.sealed(of, "retain90"))
    authors, world = (ByHand.of(planted, quiz, quiz.sealed(of, n), wrong=1) for n in ("real_authors", "world_facts"))
    assert (len(retain.ratio), len(authors.ratio), len(world.ratio)) == (4, 2, 2)
    wanted = {
        "prob_forget": forget.probability.mean(), "rouge_forget": forget.recall.mean(),
        "truth_ratio_forget": np.minimum(forget.ratio, 1 / forget.ratio).mean(),
        "prob_retain": retain.probability.mean(), "rouge_retain": retain.recall.mean(),
        "truth_ratio_retain": np.maximum(0, 1 - 1 / retain.ratio).mean(),
    }  # fmt: skip
    for name, side in (("real_authors", authors), ("real_world", world)):
        wanted |= {
            f"prob_{name}": (side.probability / side.options).mean(), f"rouge_{name}": side.recall.mean(),
            f"truth_ratio_{name}": np.maximum(0, 1 - 1 / side.ratio).mean(),
        }  # fmt: skip
    wanted["model_utility"] = 9 / sum(1 / v for n, v in wanted.items() if not n.endswith("forget"))
    values = dict(numbers(found, "tofu"))
    assert values.pop("forget_quality") is None
    assert values == pytest.approx(wanted, rel=1e-4)
    assert 0.5 < wanted["model_utility"] < 1
    assert numbers(found, "tofu", "compared")["truth_ratios"] == pytest.approx(list(forget.ratio), rel=1e-3)
    assert found.value == pytest.approx(forget.recall.mean())
    assert found.cost == benchmark_cost(planted, of, Setting()) == 6 * 5 + 4 * 5 + 4 * 4


def test_tofu_without_some_of_its_sets(planted: Model, quiz: Quiz) -> None:
    of = quiz.case(quiz.tofu("forget10", "retain90"), ["forget10"])
    found = benchmark(planted, of)
    values, missing = (numbers(found, "tofu", part) for part in ("values", "missing"))
    assert numbers(found, "tofu", "sets") == {"Forget": ["forget10"], "Retain": ["retain90"]}
    assert values["prob_real_world"] is values["rouge_real_authors"] is None
    assert missing["prob_real_world"] == "The case has nothing for TOFU's set Real World."
    three = [values[f"{measure}_retain"] for measure in ("prob", "rouge", "truth_ratio")]
    assert values["model_utility"] == pytest.approx(stats.hmean(three))
    alone = numbers(benchmark(planted, dataclasses.replace(of, retain=Split((), ()))), "tofu")
    assert alone["model_utility"] is None
    assert alone["prob_forget"] == pytest.approx(values["prob_forget"])


def test_other_retain_sets_stand_for_the_real_world(planted: Model, quiz: Quiz) -> None:
    """A set whose source and name say nothing; and the facts of a relation, by the sealed prompts that they have."""
    sets = quiz.tofu("forget10", "retain90")
    sets["more"] = quiz.set("more", "question", "jsonl", map(quiz.question, range(22, 30)))
    relations = {"symbol": quiz.files.base["relations"]["symbol"]}
    of = quiz.case(sets, ["forget10"], relations=relations, retain=dict.fromkeys(["retain90", "more", "symbol"], HALF))
    found = benchmark(planted, of)
    assert numbers(found, "tofu", "sets")["Real World"] == ["more", "symbol"]
    assert numbers(found, "tofu")["prob_real_world"] > 0
    named = quiz.case({**sets, "the_world": sets.pop("more")}, ["forget10"])
    assert numbers(benchmark(planted, named), "tofu", "sets")["Real World"] == ["the_world"]
    sourced = quiz.case({**sets, "people": quiz.tofu("real_authors")["real_authors"]}, ["forget10"])
    assert numbers(benchmark(planted, sourced), "tofu", "sets")["Real Authors"] == ["people"]


def test_a_copy_of_a_case_keeps_its_make(planted: Model, quiz: Quiz, tmp_path: Path) -> None:
    of = quiz.case(quiz.tofu(), ["forget10"])
    of.spec.save(tmp_path / "copy")
    copy = case(tmp_path / "copy" / "case.yaml").whole()
    assert makes(copy) == makes(of) == {"tofu": ["forget10"]}
    assert copy.spec.digest == of.spec.digest
    ours, theirs = (benchmark(planted, c) for c in (of, copy))
    assert ours == theirs
    assert not from_benchmark(Case.of(of.spec.records["forget10"]))


def test_forget_quality_needs_a_model_without_the_forget_set(planted: Model, untaught: Model, quiz: Quiz) -> None:
    of = quiz.case(quiz.tofu(), ["forget10"])
    after, gold = benchmark(planted, of), benchmark(untaught, of)
    test: Any = stats.ks_2samp(*(numbers(r, "tofu", "compared")["truth_ratios"] for r in (after, gold)))
    assert tofu_quality(after, gold) == verify.ForgetQuality(test.pvalue, test.statistic)
    assert tofu_quality(after, gold).distance > 0.8
    assert tofu_quality(gold, gold).p == 1
    readings = {m: {"benchmark": after} for m in ("before", "after")}
    assert benchmarks_of(readings)["tofu"]["after"].values["forget_quality"] is None
    whole = benchmarks_of({**readings, "gold": {"benchmark": gold}})["tofu"]["after"]
    assert whole.values["forget_quality"] == test.pvalue
    assert "forget_quality" not in whole.missing
    with pytest.raises(UserError, match="no numbers of TOFU"):
        tofu_quality(after, make_reading("benchmark", {"forget": {"a": 1.0}}, "."))


def lowest(model: Model, text: str) -> float:
    """The mean log-probability of the least likely 40% of a text's tokens."""
    ids = model.tokenizer(text)["input_ids"]
    logp = logprobs(model, ids)
    each = sorted(float(logp[i - 1, ids[i]]) for i in range(1, len(ids)))
    return float(np.mean(each[: max(1, int(0.4 * len(each)))]))


def test_muse_by_hand(planted: Model, quiz: Quiz) -> None:
    of = quiz.case(quiz.muse(), ["verbmem", "forget_qa"], ["holdout"])
    found = benchmark(planted, of)
    values = numbers(found, "muse")

    def overlap(prompt: str, answer: str) -> float:
        words = answer.lower().split()
        return f1(said(planted, prompt, len(words) + 4), words)

    passages = [overlap(quiz.ask(i), f"{quiz.answer(i)} and {quiz.answer(i + 1)}") for i in range(4)]
    assert values["verbmem_forget"] == pytest.approx(np.mean(passages))
    for name, places in (("knowmem_forget", range(4, 8)), ("knowmem_retain", quiz.sealed(of, "retain_qa"))):
        assert values[name] == pytest.approx(np.mean([overlap(quiz.ask(i), quiz.answer(i)) for i in places]))
        assert values[name] > 0.5
    sides = [[lowest(planted, f"{i.prompt} {i.answer}") for i in side if i.kind == "passage"]
             for side in (of.forget.working, of.holdout.working)]  # fmt: skip
    auc = np.mean([(a > b) + (a == b) / 2 for a in sides[0] for b in sides[1]])
    assert values["privleak"] == pytest.approx(100 * (auc - 0.5) / 0.5)
    assert numbers(found, "muse", "missing") == {}
    assert found.cost == benchmark_cost(planted, of, Setting()) == 4 + 4 + 3 + 8
    gold = dataclasses.replace(
        found, details={"muse": numbers_of(found)["muse"].to_json() | {"compared": {"auc": [0.8]}}}
    )
    against = benchmarks_of({"after": {"benchmark": found}, "gold": {"benchmark": gold}})["muse"]["after"]
    assert against.values["privleak"] == pytest.approx(100 * (auc - 0.8) / 0.8)


def test_muse_lacks_what_the_case_lacks(planted: Model, quiz: Quiz) -> None:
    found = benchmark(planted, quiz.case(quiz.muse("verbmem"), ["verbmem"]))
    lacks = {"knowmem_forget", "knowmem_retain", "privleak"}
    assert {n for n, v in numbers(found, "muse").items() if v is None} == lacks
    assert set(numbers(found, "muse", "missing")) == lacks


@pytest.fixture(scope="module")
def lettered(files: Any) -> Model:
    """A tiny random model in float64 whose vocabulary has the letters of options."""
    facts = files.base["relations"]["capital"]["facts"]
    words = dict.fromkeys(["<pad>", "<eos>", *"ABC", ".", ":", "Answer", "the", "capital", "of", "is"])
    words |= dict.fromkeys(w for pair in facts.items() for text in pair for w in text.split())
    tokens = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<eos>"))
    tokens.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+|(?=[.:])"), "removed")
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        initializer_range=0.5, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        hf = LlamaForCausalLM(config).double()
    return wrap(hf, PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", eos_token="<eos>"), "lettered")


def test_wmdp_by_text_and_by_letter(planted: Model, lettered: Model, quiz: Quiz) -> None:
    of = quiz.case(quiz.wmdp(), ["bio"])
    found = numbers(benchmark(lettered, of), "wmdp")
    for side, places in (("forget", range(9)), ("retain", quiz.sealed(of, "mmlu"))):
        by_text, by_letter = [], []
        for record in map(quiz.choice, places):
            asked, options, right = record["question"], record["choices"], record["answer"]
            listed = f"{asked}\nA. {options[0]}\nB. {options[1]}\nC. {options[2]}\nAnswer:"
            by_text.append(np.argmin([loss(lettered, asked, o) for o in options]) == right)
            by_letter.append(np.argmin([loss(lettered, listed, letter) for letter in "ABC"]) == right)
        assert found[f"accuracy_{side}"] == pytest.approx(np.mean(by_text))
        assert found[f"letter_accuracy_{side}"] == pytest.approx(np.mean(by_letter))
    assert len({*found.values()}) > 2
    assert numbers(benchmark(planted, of), "wmdp")["accuracy_forget"] == 1
    assert benchmark_cost(planted, of, Setting()) == 2 * 3 * (9 + 6)


def test_wmdp_lacks_choices_to_retain(planted: Model, quiz: Quiz) -> None:
    found = benchmark(planted, quiz.case({"bio": quiz.wmdp()["bio"]}, ["bio"]))
    assert numbers(found, "wmdp")["accuracy_retain"] is None
    assert numbers(found, "wmdp", "missing")["letter_accuracy_retain"] == "The case has no choices to retain."


def test_the_verdict_has_the_numbers_and_says_what_it_lacks(planted: Model, planted_case: Case, quiz: Quiz) -> None:
    tofu = benchmark(planted, quiz.case(quiz.tofu(), ["forget10"]))
    recall = make_reading("recall", {"forget": {"a/b": 1.0, "a/c": 1.0}, "twins": {"a/x": 0.0, "a/y": 0.1}}, ".")
    plain = {m: {"recall": recall} for m in ("before", "after")}
    asked = {m: {"recall": recall, "benchmark": tofu} for m in ("before", "after")}
    card = scorecard(1.0, 1.0, None)
    without, found = (verify.judge(r, scorecard=card, summary=Summary()) for r in (plain, asked))
    data: Any = found.to_json({})
    assert data["benchmarks"]["tofu"]["after"] == numbers(tofu, "tofu")
    assert set(data["benchmarks"]["tofu"]) == {"before", "after"}
    line = "Not measured: forget quality (p) of TOFU. It needs a model trained without the forget set."
    assert line in found.reasons
    assert [r for r in found.reasons if r != line] == without.reasons
    assert "benchmarks" not in without.to_json({})
    refused = benchmark(planted, planted_case)
    assert refused.value is None
    assert "none of TOFU, MUSE, WMDP" in refused.meaning
