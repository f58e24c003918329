"""Continuations agree with the likelihoods that the same model gives without a cache."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from loka.model import Model
from loka.model.run.generate import continuations
from loka.model.run.modules import replace_output

PROMPTS = ["the old man likes", "my sister looks for the red house at", "a dog"]


def test_greedy_decoding_takes_the_likeliest_token_each_time(architecture: str, tiny: Callable[[str], Model]) -> None:
    model = tiny(architecture)
    found = continuations(model, PROMPTS, tokens=4)
    for prompt, text in zip(PROMPTS, found, strict=True):
        ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)
        start = ids.shape[1]
        for _ in range(4):
            with torch.no_grad():
                step = model.hf(ids).logits[0, -1].argmax()
            if int(step) == model.tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, step[None, None]], 1)
        assert text == model.tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()


def test_samples_follow_the_distribution_and_their_seed(tiny: Callable[[str], Model]) -> None:
    model = tiny("LlamaForCausalLM")
    with torch.no_grad():
        ids = model.tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"].to(model.device)
        p = model.hf(ids).logits[0, -1].softmax(-1)
    texts = continuations(model, PROMPTS[:1] * 2000, tokens=1, seed=1)
    top = p.topk(3).indices
    for token in top.tolist():
        share = np.mean([t == model.tokenizer.decode([token], skip_special_tokens=True).strip() for t in texts])
        assert abs(share - float(p[token])) < 4 * np.sqrt(float(p[token]) / 2000) + 0.005
    assert continuations(model, PROMPTS, tokens=3, seed=1) == continuations(model, PROMPTS, tokens=3, seed=1)
    assert continuations(model, PROMPTS, tokens=9, seed=1) != continuations(model, PROMPTS, tokens=9, seed=2)


@pytest.mark.parametrize("named", [7, [9, 7]], ids=["one", "several"])
def test_an_end_that_only_the_generation_config_names_ends_a_text(named: object, tiny: Callable[[str], Model]) -> None:
    """The model is made to say one word over and over; the generation's configuration may call it an end."""
    model = tiny("LlamaForCausalLM")
    word = model.tokenizer.decode([7])
    with replace_output(model.hf.get_output_embeddings(), lambda out: out.index_fill(-1, torch.tensor([7]), 1e3)):
        model.hf.generation_config.eos_token_id = 2
        assert continuations(model, PROMPTS, tokens=3) == [" ".join([word] * 3)] * 3
        model.hf.generation_config.eos_token_id = named
        assert continuations(model, PROMPTS, tokens=3) == [""] * 3
