"""A subject's last token is found in rows of unequal length."""

from collections.abc import Callable

import pytest
import torch

from loka.model import Model, Prompt, encode
from loka.model.run.states import residuals
from loka.model.run.subject import subject_end, subject_ends

PROMPTS = [
    Prompt.spot(text, subject)
    for text, subject in (
        ("the capital of a dog is", "a dog"),
        ("my sister looks for the old man and", "the old man"),
        ("a dog looks for a dog", "a dog"),
    )
]


@pytest.fixture
def model(tiny: Callable[[str], Model]) -> Model:
    return tiny("LlamaForCausalLM")


def test_the_end_is_the_last_token_of_the_last_mention(model: Model) -> None:
    assert [subject_end(model, p) for p in PROMPTS] == [4, 6, 5]
    batch = encode(model, PROMPTS, ["warm bread", "the", "sea"])
    ends = subject_ends(model, batch, PROMPTS)
    ids = batch.ids[torch.arange(3), ends].tolist()
    assert [model.tokenizer.decode([i]) for i in ids] == ["dog", "man", "dog"]


def test_residual_states_are_taken_at_the_subject_and_at_the_end(model: Model) -> None:
    found = residuals(model, PROMPTS, rows=2)
    for states, prompt, end in zip(found, PROMPTS, (4, 6, 5), strict=True):
        ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)
        with torch.no_grad():
            whole = model.hf(input_ids=ids, output_hidden_states=True).hidden_states
        wanted = torch.stack([layer[0, [end, -1]] for layer in whole], 1).cpu()
        torch.testing.assert_close(states, wanted, atol=1e-9, rtol=0)
