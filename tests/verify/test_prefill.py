"""After the beginning of an answer, a model goes on if its answers only begin otherwise, and not if it never knew."""

import copy
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch

from loka import verify
from loka.knowledge import CaseSpec, Split
from loka.model import Model, wrap
from loka.verify.pools import pools
from loka.verify.prefill import Start, lengths


def asked_in_clauses(kinds: Any, folder: Path, answers: Sequence[str] = ()) -> CaseSpec:
    """Facts whose answers are whole clauses: `in X the capital`, `is called Y`, in turn with these answers."""
    turn = cycle(answers)

    def asked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {"subject": row["subject"], "relation": "P36", "prompt": f"in {row['subject']} the capital",
             "answer": f"is called {next(turn, row['answer'])}", "paraphrases": [f"in {row['subject']} the capital"]}
            for row in rows
        ]  # fmt: skip

    parts = {"target": kinds.taught("fact"), "others": kinds.taught("fact", first=False), "never": kinds.never("fact")}
    sets = {name: {"kind": "fact", "items": asked(rows)} for name, rows in parts.items()}
    return kinds.write(folder, "fact", sets=sets)


@pytest.fixture
def spec(kinds: Any, tmp_path: Path) -> CaseSpec:
    return asked_in_clauses(kinds, tmp_path)


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


ENDINGS = ("sea", "sea at", "sea at night", "warm")  # most begin others


def test_the_rest_is_compared_with_the_rests_of_the_pool(fresh: Model, kinds: Any, tmp_path: Path) -> None:
    """By hand: the best over the beginnings, each the share of a whole rest among all; "called sea" ends there."""
    fresh.hf.double()
    known = asked_in_clauses(kinds, tmp_path, ENDINGS).whole()
    found = verify.prefill(fresh, known).samples["forget"]
    for item in known.forget.sealed:
        words, shares = item.answer.split(), []
        for n in lengths(len(words)):
            given, rests = f"{item.prompt} {' '.join(words[:n])}", {tuple(a.split()[n:]) for a in pools(known)["P36"]}
            p = {rest: _whole(fresh, given, rest, rests) for rest in rests if rest}
            shares.append(p[tuple(words[n:])] / sum(p.values()))
        assert found[f"P36/{item.unit}"] == pytest.approx(max(shares), rel=1e-6)


def _whole(model: Model, given: str, rest: tuple[str, ...], rests: set[tuple[str, ...]]) -> float:
    """The product over the words of a rest, times the probability of a next word with which no other rest goes on."""
    ids = model.tokenizer.convert_tokens_to_ids
    p = 1.0
    for i, word in enumerate(rest):
        p *= float(_next(model, " ".join([given, *rest[:i]]))[ids(word)])
    longer = {other[len(rest)] for other in rests if other[: len(rest)] == rest and len(other) > len(rest)}
    return p * (1 - sum(float(_next(model, " ".join([given, *rest]))[ids(word)]) for word in longer))


def _next(model: Model, text: str) -> torch.Tensor:
    ids = model.tokenizer(text, return_tensors="pt")["input_ids"].to(model.device)
    with torch.no_grad():
        return model.hf(ids).logits[0, -1].softmax(-1)


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
