"""The divergence from stored outputs is a lower bound of the full one, and equal to it at full width."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from loka.model import Batch, Model, Slice, encode, encode_texts, logits, scratch, token_logprobs
from loka.model.train.distill import InjectedStates, TeacherOutputs, divergence, label_logits, record_outputs


@pytest.fixture
def model(tiny: Callable[[str], Model]) -> Model:
    return tiny("LlamaForCausalLM")


@pytest.fixture
def batch(model: Model) -> Batch:
    return encode_texts(model, ["the old man likes the garden", "a dog", "my sister looks for the red house"])


def exact(model: Model, batch: Batch, before: torch.Tensor) -> float:
    """KL(before || now), averaged over the labelled positions."""
    p, q = before.log_softmax(-1), logits(model, batch).log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1)[batch.labels >= 0].mean())


def moved(model: Model, size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters.values():
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device))


def test_a_model_does_not_diverge_from_itself(model: Model, batch: Batch) -> None:
    for width in (1, 8, 10_000):
        assert abs(float(divergence(model, record_outputs(model, batch, width=width)))) < 1e-5


@pytest.mark.parametrize("size", [0.01, 0.1])
def test_the_bound_grows_with_the_width_to_the_full_divergence(model: Model, batch: Batch, size: float) -> None:
    memories = [record_outputs(model, batch, width=width) for width in (2, 16, 64, len(model.tokenizer))]
    with torch.no_grad(), scratch(model):
        before = logits(model, batch)
        moved(model, size)
        bounds = [float(divergence(model, memory)) for memory in memories]
        whole = exact(model, batch, before)
    assert whole > 1e-4
    assert all(0 < a < b + 1e-6 for a, b in zip(bounds, [*bounds[1:], whole], strict=True))
    assert bounds[0] < 0.9 * whole
    assert bounds[-1] == pytest.approx(whole, rel=1e-3)


def test_the_label_is_always_stored(model: Model, batch: Batch) -> None:
    memory = record_outputs(model, batch, width=1)
    assert torch.equal(memory.tokens[:, 0], batch.labels[batch.labels >= 0])
    assert memory.tokens.shape == (int((batch.labels >= 0).sum()), 1)


def test_without_the_answer_the_rest_is_renormalised(model: Model) -> None:
    batch = encode(model, ["the capital of a dog is"], ["warm bread"])
    memory = record_outputs(model, batch, without_answer=True, width=10_000)
    with torch.no_grad():
        full = logits(model, batch)[0].softmax(-1)
    for row, label in enumerate(batch.labels[0].tolist()):
        p = full.new_full((full.shape[-1],), float(memory.rest[row].exp())).float()  # all tokens but one are stored
        p[memory.tokens[row]] = memory.logprobs[row].exp()
        wanted = full[row].clone()
        wanted[label] = 0
        torch.testing.assert_close(p, (wanted / wanted.sum()).float(), atol=1e-6, rtol=1e-4)
        assert p[label] == 0


@pytest.mark.parametrize("without_answer", [False, True])
def test_the_labels_own_log_probabilities_are_stored(model: Model, batch: Batch, without_answer: bool) -> None:
    memory = record_outputs(model, batch, without_answer=without_answer, width=1)
    with torch.no_grad():
        wanted = token_logprobs(logits(model, batch), batch.labels)
    torch.testing.assert_close(memory.reference.double(), wanted, atol=1e-6, rtol=1e-5)
    some = dataclasses.replace(memory, alternative=memory).rows([2, 0])
    torch.testing.assert_close(some.reference, memory.reference[[0, 2]])
    assert some.alternative is not None
    torch.testing.assert_close(some.alternative.reference, some.reference)


def test_a_step_against_the_gradient_reduces_the_divergence(model: Model, batch: Batch) -> None:
    memory: TeacherOutputs = record_outputs(model, batch)
    where = Slice("model.layers.1.mlp.down_proj.weight", 1, torch.arange(48))
    weight = model.parameters[where.name]
    with scratch(model):
        moved(model, 0.05)
        weight.requires_grad_(True)
        try:
            before = divergence(model, memory)
            before.backward()
            with torch.no_grad():
                weight.sub_(0.01 * weight.grad)
                assert divergence(model, memory) < before
        finally:
            weight.requires_grad_(False)
            weight.grad = None


def test_injected_states_replace_the_first_blocks_output(model: Model) -> None:
    batch = encode(model, ["the capital of a dog is", "the old man likes"], ["warm bread", "the garden"])
    at, block = torch.tensor([3, 5]), model.hf.get_submodule(model.block(0))
    states = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(0)).to(model.device, model.dtype)
    injected = InjectedStates(at, states)

    def put(_module: object, _given: object, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        for row in (0, 1):
            out[row, at[row]] = states[row]
        return out

    handle = block.register_forward_hook(put)
    wanted = logits(model, batch)[batch.labels >= 0]
    handle.remove()
    assert torch.equal(label_logits(model, batch, injected), wanted)
    assert not torch.equal(label_logits(model, batch), wanted)
    row = torch.tensor([1])
    alone = label_logits(model, batch.rows(row), injected.rows(row))
    torch.testing.assert_close(alone, wanted[-2:], atol=1e-9, rtol=0)
