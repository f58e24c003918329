"""Padding changes nothing: answers of any lengths score in one batch as they do one at a time."""

from collections.abc import Callable

import pytest
import torch

from loka._util.errors import UserError
from loka.model import Model, chunks, encode, encode_texts, logits, token_logprobs

PROMPTS = ["the capital of a dog is", "the garden", "my sister looks for the red house at the sea", "the"]
ANSWERS = ["warm bread", "a small bird", "town", "the old man likes the river"]


def test_a_padded_batch_scores_as_one_row_at_a_time(tiny: Callable[[str], Model], architecture: str) -> None:
    model = tiny(architecture)
    with torch.no_grad():
        batch = encode(model, PROMPTS, ANSWERS)
        together = token_logprobs(logits(model, batch), batch.labels).sum(-1)
        for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
            head, full = (model.tokenizer(t, return_tensors="pt")["input_ids"] for t in (prompt, f"{prompt} {answer}"))
            scores = model.hf(full.to(model.device)).logits[0].log_softmax(-1)
            alone = sum(scores[i - 1, full[0, i]] for i in range(head.shape[1], full.shape[1]))
            torch.testing.assert_close(together[row], alone, atol=1e-9, rtol=0)


def test_labels_are_the_answers_tokens(tiny: Callable[[str], Model]) -> None:
    model = tiny("LlamaForCausalLM")
    batch = encode(model, PROMPTS, ANSWERS)
    asked = [[t for t in row if t >= 0] for row in batch.labels.tolist()]
    assert [model.tokenizer.decode(t) for t in asked] == ANSWERS
    assert batch.keep == 6
    assert batch.tokens == sum(len(f"{p} {a}".split()) for p, a in zip(PROMPTS, ANSWERS, strict=True))
    assert logits(model, batch).shape == (4, 6, len(model.tokenizer))


def test_all_tokens_of_a_text_but_the_first_are_labels_and_long_texts_are_cut(tiny: Callable[[str], Model]) -> None:
    model = tiny("GPT2LMHeadModel")
    batch = encode_texts(model, ["the old man likes the garden", "a dog"], limit=4)
    assert (batch.labels >= 0).sum(-1).tolist() == [3, 1]
    assert batch.ids.shape == (2, 4)


def test_an_empty_batch_is_refused(tiny: Callable[[str], Model]) -> None:
    with pytest.raises(UserError, match="nothing to run"):
        encode(tiny("LlamaForCausalLM"), [], [])
    with pytest.raises(UserError, match="the answer '' adds no token to the prompt 'the'"):
        encode(tiny("LlamaForCausalLM"), ["the"], [""])


def test_chunks_cover_the_range_once() -> None:
    assert [i for part in chunks(7, 3) for i in range(7)[part]] == list(range(7))
    assert list(chunks(0, 3)) == []
