"""How well a model recalls: whole answers, against generation and against scoring one row at a time."""

import dataclasses

import pytest
import torch

from loka._util.errors import UserError
from loka.knowledge import (
    Case,
    Item,
    case,
    neutral_sealed,
    neutral_working,
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
    pool = ["warm", "warm bread", "the old man likes", "a small bird sings about the river"]
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
