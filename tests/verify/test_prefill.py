"""After the beginning of an answer, a model goes on if its answers only begin otherwise, and not if it never knew."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loka import verify
from loka.knowledge import CaseSpec, Split
from loka.model import Model, wrap
from loka.verify.pools import pools
from loka.verify.prefill import Start, lengths


@pytest.fixture
def spec(kinds: Any, tmp_path: Path) -> CaseSpec:
    """Facts whose answers are whole clauses: `in X the capital`, `is called Y`."""

    def asked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {"subject": row["subject"], "relation": "P36", "prompt": f"in {row['subject']} the capital",
             "answer": f"is called {row['answer']}", "paraphrases": [f"in {row['subject']} the capital"]}
            for row in rows
        ]  # fmt: skip

    parts = {"target": kinds.taught("fact"), "others": kinds.taught("fact", first=False), "never": kinds.never("fact")}
    sets = {name: {"kind": "fact", "items": asked(rows)} for name, rows in parts.items()}
    return kinds.write(tmp_path, "fact", sets=sets)


@pytest.fixture
def refusing(taught: Model) -> Model:
    """A copy in which no answer may begin as it was taught to."""
    model = wrap(copy.deepcopy(taught.hf), taught.tokenizer, "refusing")
    capital, called = (taught.tokenizer.convert_tokens_to_ids(word) for word in ("capital", "is"))

    def strike(module: object, args: object, given: dict[str, torch.Tensor], out: Any) -> None:
        last = given["input_ids"][:, -out.logits.shape[1] :]
        out.logits[:, :, called] = torch.where(last == capital, -1e4, out.logits[:, :, called])

    model.hf.register_forward_hook(strike, with_kwargs=True)
    return model


def test_a_model_whose_answers_only_begin_otherwise_goes_on(
    refusing: Model, planted: Model, untaught: Model, spec: CaseSpec
) -> None:
    known = spec.on(planted)
    assert verify.recall(refusing, known).value == 0
    found, never = verify.prefill(refusing, known), verify.prefill(untaught, known)
    assert found.value is not None
    assert never.value is not None
    assert found.value > 0.9
    assert found.controls["twins"] < 0.2
    assert never.value < 0.2
    assert found.details["left_out"] == {"forget": 0, "twins": 0}


def test_the_rest_is_compared_with_the_rests_of_the_pool(fresh: Model, spec: CaseSpec) -> None:
    """By hand: the best over the beginnings, each softmax over whole rests."""
    known = spec.whole()
    item = known.forget.sealed[1]  # `is called X Port`, of which one or two tokens are given
    best = 0.0
    for n in (1, 2):
        words = item.answer.split()
        rests = {" ".join(a.split()[n:]) for a in pools(known)["P36"]} - {""}
        logp = {rest: _logprob(fresh, f"{item.prompt} {' '.join(words[:n])}", rest) for rest in rests}
        total = np.logaddexp.reduce(list(logp.values()))
        best = max(best, float(np.exp(logp[" ".join(words[n:])] - total)))
    found = verify.prefill(fresh, known)
    assert found.samples["forget"][f"P36/{item.unit}"] == pytest.approx(best, rel=1e-4)


def _logprob(model: Model, prompt: str, rest: str) -> float:
    before, whole = (model.tokenizer(t, return_tensors="pt")["input_ids"] for t in (prompt, f"{prompt} {rest}"))
    with torch.no_grad():
        logp = model.hf(input_ids=whole.to(model.device)).logits[0].log_softmax(-1)
    return sum(float(logp[i - 1, whole[0, i]]) for i in range(before.shape[1], whole.shape[1]))


def test_answers_without_a_rest_are_counted_and_left_out(planted: Model, planted_case: CaseSpec) -> None:
    """Half of the planted capitals are one word, and the others end alike."""
    found = verify.prefill(planted, planted_case)
    assert found.value is None
    assert "None of the 16 answers has a rest to ask for" in found.meaning


def test_some_answers_without_a_rest_leave_the_others(planted: Model, spec: CaseSpec) -> None:
    known = spec.on(planted)
    short = [i if n else i.__class__(i.subject, i.relation, i.prompt, "is") for n, i in enumerate(known.forget.sealed)]
    found = verify.prefill(
        planted, known.__class__(**{**vars(known), "forget": Split(known.forget.working, tuple(short))})
    )
    assert found.details["left_out"]["forget"] == 1
    assert "; 1 answers without a rest are left out" in found.meaning
    assert len(found.samples["forget"]) == len(short) - 1


def test_a_start_costs_its_head_and_what_follows() -> None:
    assert Start((1, 2), ((3, 4, 5), (6,)), long=False).rows == 1 + 2 / 2
    assert [lengths(n) for n in (0, 1, 2, 3, 8)] == [[], [], [1], [1], [1, 2, 4]]
