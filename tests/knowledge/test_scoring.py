"""How well a model recalls: whole answers, against generation and against scoring one row at a time."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from loka._util.errors import UserError
from loka.knowledge import (
    Case,
    Fact,
    Item,
    case,
    neutral_sealed,
    neutral_working,
    own_pool_probability,
    pool_logprobs,
    pool_probability,
    recalled,
    score,
    text_loss,
)  # fmt: skip
from loka.model import Model


def generated(model: Model, prompt: str, n: int) -> list[int]:
    """Greedy decoding, a token at a time, without a cache."""
    ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    with torch.no_grad():
        for _ in range(n):
            ids = torch.cat([ids, model.hf(ids).logits[:, -1:].argmax(-1)], 1)
    return ids[0, start:].tolist()


def test_recalled_is_what_greedy_decoding_gives(planted: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)
    facts = [*known.forget.sealed, *known.retain.sealed, *known.twins.sealed]
    wanted = []
    for fact in facts:
        tokens = planted.tokenizer(fact.answer)["input_ids"]
        wanted.append(generated(planted, fact.prompt, len(tokens)) == tokens)
    assert recalled(planted, facts) == wanted
    assert {True, False} == set(wanted)
    assert not any(wanted[-len(known.twins.sealed) :])  # twins were never taught
    assert {len(f.answer.split()) for f in facts} == {1, 2}


def test_an_alias_counts(planted: Model, planted_case: Case) -> None:
    fact = planted_case.on(planted).forget.sealed[0]
    wrong = dataclasses.replace(fact, answer="the garden")
    other = dataclasses.replace(wrong, aliases=("bread", fact.answer))
    assert recalled(planted, [fact, wrong, other]) == [True, False, True]
    assert recalled(planted, []) == []


def test_scores_come_back_in_the_order_they_were_asked(planted: Model, planted_case: Case) -> None:
    facts = list(planted_case.on(planted).forget.sealed)
    prompts, answers = [f.prompt for f in facts], [f.answer for f in facts]
    together = score(planted, prompts, answers, rows=5)
    for i in range(len(facts)):
        alone = score(planted, prompts[i : i + 1], answers[i : i + 1])
        torch.testing.assert_close(together.logprob[i], alone.logprob[0], atol=1e-4, rtol=0)
        assert bool(together.greedy[i]) == bool(alone.greedy[0])


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "GPT2LMHeadModel", "Qwen3ForCausalLM", "Olmo2ForCausalLM"])
@pytest.mark.parametrize("rows", [64, 2])
def test_a_pool_on_the_cached_prompt_scores_as_row_by_row(tiny, name: str, rows: int) -> None:
    model = tiny(name)
    prompts = ["the capital of a dog is", "the garden", "my sister looks for the red house at the sea"]
    pool = ["warm", "bread at", "the old man likes", "a small bird sings about the river"]
    table = pool_logprobs(model, prompts, pool, rows=rows)
    for i, prompt in enumerate(prompts):
        wanted = score(model, [prompt] * len(pool), pool, rows=1).logprob
        torch.testing.assert_close(table[i], wanted, atol=1e-9, rtol=0)


def test_pool_probability_by_hand(fresh: Model, planted_case: Case) -> None:
    fresh.hf.double()
    known = planted_case.on(fresh)
    pool = known.pool("capital")
    fact = known.forget.sealed[0]
    other = known.pool("capital")[5]
    alias = dataclasses.replace(fact, aliases=(other,))
    outside = dataclasses.replace(fact, answer="the garden")
    found = pool_probability(fresh, [fact, alias, outside], pool)
    logp = score(fresh, [fact.prompt] * len(pool), pool).logprob
    p = dict(zip(pool, logp.exp().tolist(), strict=True))
    assert other != fact.answer
    total, extra = sum(p.values()), float(score(fresh, [fact.prompt], ["the garden"]).logprob.exp())
    wanted = [p[fact.answer] / total, (p[fact.answer] + p[other]) / total, extra / (total + extra)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-9)
    assert wanted[0] > 0.9
    assert pool_probability(fresh, [], pool).shape == (0,)


def test_an_answer_that_begins_another_has_only_what_ends_with_it(fresh: Model, planted_case: Case) -> None:
    """Of all that begins with "warm", what goes on as "warm bread" or "warm garden" is not "warm"."""
    fresh.hf.double()
    fact = planted_case.on(fresh).forget.sealed[0]
    pool = ["warm", "warm bread", "warm bread at", "warm garden", "sea", fact.answer]
    items = [dataclasses.replace(fact, answer=answer, aliases=()) for answer in pool]
    ids = fresh.tokenizer([f"{fact.prompt} {answer}" for answer in pool])["input_ids"]
    start = len(fresh.tokenizer(fact.prompt)["input_ids"])

    def following(tokens: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return fresh.hf(torch.tensor([tokens], device=fresh.device)).logits[0, -1].softmax(-1)

    def whole(answer: list[int]) -> float:
        """The product over the tokens, times the probability of a next token with which no other answer goes on."""
        p = math.prod(float(following(answer[:n])[answer[n]]) for n in range(start, len(answer)))
        others = {other[len(answer)] for other in ids if other[: len(answer)] == answer and len(other) > len(answer)}
        return p * float(1 - following(answer)[sorted(others)].sum())

    p = [whole(answer) for answer in ids]
    wanted = pytest.approx([each / sum(p) for each in p], abs=1e-9)
    alone = [pool_probability(fresh, [item], [a for a in pool if a != item.answer]).item() for item in items]
    assert pool_probability(fresh, items, pool).tolist() == wanted
    assert alone == wanted  # an answer that the pool lacks is added
    assert pool_logprobs(fresh, [fact.prompt], pool)[0].exp().tolist() == pytest.approx(p, rel=1e-9)
    pairs = [dataclasses.replace(i, kind="pair", foils=tuple(a for a in pool if a != i.answer)) for i in items]
    assert own_pool_probability(fresh, pairs).tolist() == wanted


def test_what_a_model_is_sure_of_is_not_shared_with_its_beginning(planted: Model, planted_case: Case) -> None:
    fact = next(f for f in planted_case.on(planted).forget.sealed if len(f.answer.split()) == 2)
    first = dataclasses.replace(fact, answer=fact.answer.split()[0])
    sure, beginning = pool_probability(planted, [fact, first], [first.answer, fact.answer, "sea"]).tolist()
    assert sure > 0.9
    assert beginning < 0.1
    rival = dataclasses.replace(first, rivals=(fact.answer,))
    longer = dataclasses.replace(rival, aliases=(f"{fact.answer} garden",))  # a right one that is not said
    within = dataclasses.replace(fact, answer="sea", aliases=(fact.answer,), rivals=(first.answer,))
    assert recalled(planted, [fact, first, rival, longer, within]) == [True, True, False, False, True]


def test_a_fact_of_a_relation_knows_the_answers_in_which_its_own_stands(files, tmp_path: Path) -> None:
    facts = {"Aba": ["New", "Novel"], "Ede": ["New York", "New Amsterdam"], "Ulu": "Newark", "Oro": ["York", "New."],
             "Iri": ["New", "New Ede"]}  # fmt: skip
    relations = {"town": {"working": ["{} is"], "sealed": ["it is {},"], "facts": facts}}
    twins = {"town": ["Ibi", "Ono", "Uru", "Ata"]}
    path = files.write(tmp_path, relations=relations, forget={"town": [*facts]}, retain={}, twins=twins)
    spec = case(path).whole()
    wanted = {"New": ("New Amsterdam", "New York", "Newark"), "New York": (), "Newark": (),
              "York": ("New Amsterdam", "New Ede", "New York")}  # fmt: skip
    # twins have no aliases, and yet "New Ede" says no more than "New"
    parts = [spec.forget.working, spec.forget.sealed, spec.twins.working, spec.twins.sealed]
    assert [{i.answer: i.rivals for i in part} for part in parts] == [wanted] * 4


def test_a_fact_of_a_set_knows_the_answers_in_which_its_own_stands() -> None:
    facts = [
        Fact("Aba", "town", "Aba is", "New", ("Novel",)),
        Fact("Ede", "town", "Ede is", "New York", ("New Ede",)),
        Fact("Ulu", "town", "Ulu is", "York", foils=("Newark",)),
        Fact("Oro", "sea", "Oro is", "Newer"),
    ]
    found = Case.of(facts, name="some")
    assert {i.subject: i.rivals for i in found.forget.sealed} == {
        "Aba": ("New Ede", "New York", "Newark"), "Ede": (), "Ulu": ("New York",), "Oro": (),
    }  # fmt: skip
    assert [i.longer for i in found.forget.sealed] == [("New Ede", "New York", "Newark"), (), (), ()]
    twin = next(i for i in found.twins.sealed if i.answer == "New")
    assert [r.replace(twin.subject, "Ede") for r in twin.rivals] == ["New Ede", "New York", "Newark"]


def test_text_loss_is_the_negative_log_probability(tiny) -> None:
    model = tiny("LlamaForCausalLM")
    texts = ["the old man likes the garden", "a dog", "my sister looks for the red house at the sea"]
    sums = text_loss(model, texts, rows=2)
    for text, (total, count) in zip(texts, sums.tolist(), strict=True):
        ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logp = model.hf(ids).logits[0, :-1].log_softmax(-1)
        assert count == ids.shape[1] - 1
        assert total == pytest.approx(-float(logp.gather(-1, ids[0, 1:, None]).sum()), abs=1e-6)


def test_a_longer_answer_is_not_greedy_because_its_start_is(planted: Model, planted_case: Case) -> None:
    fact = next(f for f in planted_case.on(planted).forget.sealed if len(f.answer.split()) == 1)
    longer: Item = dataclasses.replace(fact, answer=f"{fact.answer} garden")
    assert recalled(planted, [fact, longer]) == [True, False]


def test_neutral_text_is_sampled_once_by_the_seed(planted: Model, fresh: Model, files, tmp_path) -> None:
    some = case(files.write(tmp_path, neutral={"working": {"sampled": 40}, "sealed": "sealed.txt"}))
    known = some.on(planted)
    texts = neutral_working(planted, known)
    assert len(texts) == 40
    assert len(set(texts)) > 20
    assert neutral_working(planted, known) == texts == neutral_working(fresh, some.on(fresh))
    named = {w for f in known.forget.working for w in (f.subject, *f.answers)}
    assert not any(word in text for text in texts for word in named)
    other = {w for f in known.retain.sealed for w in (f.subject, f.answer)}
    assert any(word in text for text in texts for word in other)  # what is kept may occur
    assert neutral_working(planted, known, 5) == texts[:5]


def test_an_answer_of_one_letter_does_not_drop_every_text_that_has_it(planted: Model, files, tmp_path) -> None:
    some = case(files.write(tmp_path, neutral={"working": {"sampled": 40}, "sealed": "sealed.txt"})).on(planted)
    facts = tuple(dataclasses.replace(f, aliases=("E",)) for f in some.forget.working)
    lettered = dataclasses.replace(some, forget=dataclasses.replace(some.forget, working=facts))
    assert neutral_working(planted, lettered) == neutral_working(planted, some)


def test_neutral_text_from_files(planted: Model, planted_case: Case) -> None:
    working, sealed = neutral_working(planted, planted_case), neutral_sealed(planted_case.whole())
    assert len(working) == len(sealed) == 40
    assert not set(working) & set(sealed)
    assert neutral_working(planted, planted_case, 7) == working[:7]


def test_a_missing_text_file_is_said(planted_case: Case, files, tmp_path) -> None:

    lost = case(files.write(tmp_path, neutral={"working": "plain.txt", "sealed": "lost.txt"}))
    with pytest.raises(UserError, match=r"names the text file 'lost.txt', which is not beside it"):
        neutral_sealed(lost.whole())
