"""Continuations agree with the likelihoods that the same model gives without a cache."""

from collections.abc import Callable

import numpy as np
import torch

from loka.model import Model
from loka.model.run.generate import continuations

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
