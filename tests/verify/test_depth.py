"""The depth score on models whose truth is known: the same model, and a model with other blocks."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from loka import verify
from loka._util.errors import UserError
from loka.knowledge import Item
from loka.model import Model
from loka.model.run.blocks import block_outputs, blocks, run_patched
from loka.verify.depth import _Sources

IDS = torch.tensor([1, 9, 4, 12, 7, 15])
QUESTION = verify.Question(IDS, (2, 5), (2, 5))


@pytest.fixture
def other(tiny: Callable[[str], Model]) -> torch.nn.Module:
    """A model with other blocks, but the same embedding, final norm and unembedding."""
    hf = copy.deepcopy(tiny("LlamaForCausalLM").hf)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in blocks(hf).parameters():
            p.copy_(0.2 * torch.randn_like(p))
    return hf


def test_own_states_change_nothing_and_others_do(architecture: str, tiny: Callable[[str], Model]) -> None:
    hf = tiny(architecture).hf
    with torch.no_grad():
        plain = hf(input_ids=IDS[None]).logits
    states = block_outputs(hf, IDS)
    assert states.shape == (3, len(IDS), 32)
    own = run_patched(hf, IDS, states, layers=range(3), span=slice(2, 5))
    torch.testing.assert_close(own, plain.expand(3, -1, -1))
    changed = run_patched(hf, IDS, 2 * states.flip(1), layers=[0, 2], span=slice(2, 5))
    assert changed.shape[0] == 2
    torch.testing.assert_close(changed[:, :2], plain[:, :2].expand(2, -1, -1))
    assert all((changed[:, t] - plain[:, t]).abs().max() > 1e-3 for t in (2, 3, 4))
    torch.testing.assert_close(changed[1, 5], plain[0, 5])  # after the last block nothing reaches other positions


def test_the_last_layer_of_another_model_gives_its_answer(tiny: Callable[[str], Model], other) -> None:
    hf = tiny("LlamaForCausalLM").hf
    found = verify.unlearning_depth(hf, QUESTION, never=other, edited=other, layers=[2], threshold=-math.inf)
    with torch.no_grad():
        logp = other(input_ids=IDS[None]).logits[0].log_softmax(-1)
    assert found.full - found.never[0] == pytest.approx(float(logp[2:5].gather(-1, IDS[3:6, None]).mean()))


def test_an_unedited_model_scores_zero_and_one_that_never_learnt_scores_one(
    tiny: Callable[[str], Model], other: torch.nn.Module
) -> None:
    hf = tiny("LlamaForCausalLM").hf
    knows, never = (hf, other) if answer(hf) > answer(other) else (other, hf)
    surface = verify.unlearning_depth(knows, QUESTION, never=never, edited=knows)
    assert surface.holding
    assert surface.missing == ()
    assert surface.score == pytest.approx(0)
    through = verify.unlearning_depth(knows, QUESTION, never=never, edited=never)
    assert through.score == 1
    assert through.missing == through.holding == surface.holding
    assert np.array_equal(through.never, through.edited)


def answer(hf: torch.nn.Module) -> float:
    with torch.no_grad():
        return float(hf(input_ids=IDS[None]).logits[0].log_softmax(-1)[2:5].gather(-1, IDS[3:6, None]).mean())


def test_ours_norms_the_last_layer_once_and_theirs_twice(tiny: Callable[[str], Model]) -> None:
    hf = tiny("LlamaForCausalLM").hf
    ours = verify.unlearning_depth(hf, QUESTION, never=hf, edited=hf, threshold=1e-6)
    theirs = verify.unlearning_depth(hf, QUESTION, never=hf, edited=hf, threshold=1e-6, convention="uds")
    assert ours.never == pytest.approx(np.zeros(3), abs=1e-9)
    assert theirs.never[:2] == pytest.approx(np.zeros(2), abs=1e-9)
    assert abs(theirs.never[2]) > 1e-3
    assert math.isnan(ours.score)
    assert math.isnan(verify.mean_depth([ours]))
    assert verify.mean_depth([ours], convention="uds") == 0


@pytest.mark.parametrize(
    ("question", "layers", "message"),
    [
        (verify.Question(IDS, (2, 6), (2, 5)), None, "asked is 2 to 6; positions must rise within 0 to 5"),
        (verify.Question(IDS, (2, 5), (3, 3)), None, "patched is 3 to 3"),
        (QUESTION, [3], "choose at least one of 0 to 2"),
        (QUESTION, [], "choose at least one of 0 to 2"),
    ],
)
def test_places_that_do_not_exist_are_refused(tiny: Callable[[str], Model], question, layers, message: str) -> None:
    hf = tiny("LlamaForCausalLM").hf
    with pytest.raises(UserError, match=message):
        verify.unlearning_depth(hf, question, never=hf, edited=hf, layers=layers)


@pytest.mark.parametrize("own", [True, False])
def test_a_fact_falls_as_by_whole_runs(architecture: str, tiny: Callable[[str], Model], own: bool) -> None:
    """The check runs only the layers after the patched one; here every layer's states are patched into a full run."""
    original, edited, never = (tiny(architecture) for _ in range(3))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for model in (edited, never):
            for p in model.parameters.values():
                p += 0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    fact = Item("the red house", "home", "the old man likes the red house at", "the sea at night")
    twin = Item("a dog", "home", "the old man likes a dog at", "the garden")
    found = _Sources(original, edited, never).falls(fact, twin, own=own)
    texts = [original.tokenizer(f"{f.prompt} {fact.answer}", return_tensors="pt")["input_ids"][0] for f in (fact, twin)]
    n = len(texts[0]) - len(original.tokenizer(fact.prompt)["input_ids"])
    wanted = []
    for model, ids in ((never, texts[0 if own else 1]), (edited, texts[0]), (edited, texts[1])):
        span = slice(len(texts[0]) - n - 1, len(texts[0]) - 1)
        states = torch.zeros(3, len(texts[0]), 32, dtype=torch.float64)
        states[:, span] = block_outputs(model.hf, ids)[:, -n - 1 : -1]
        runs = run_patched(original.hf, texts[0], states, layers=range(3), span=span)
        runs = torch.cat([original.hf(input_ids=texts[0][None]).logits, runs])
        logp = runs.log_softmax(-1)[:, span].gather(-1, texts[0][-n:].expand(4, -1)[..., None]).mean((1, 2))
        wanted.append((logp[0] - logp[1:]).tolist())
    assert found == pytest.approx(np.array(wanted), abs=1e-9)
    assert np.median(np.abs(wanted)) > 1e-2
    assert np.abs(wanted).min() > 1e-5


def test_something_without_blocks_is_refused(tiny: Callable[[str], Model]) -> None:
    hf = copy.deepcopy(tiny("GPT2LMHeadModel").hf)
    hf.config.num_hidden_layers = 7
    with pytest.raises(UserError, match="GPT2LMHeadModel has no list of 7 blocks"):
        blocks(hf)
