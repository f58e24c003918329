"""Slices get the gradients that they have in the full matrix, and no full gradient is formed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from loka._util.errors import UserError
from loka.model import (
    Model,
    Site,
    Slice,
    checkpointed,
    encode,
    logits,
    sliced,
    slices,
    token_logprobs,
    unfrozen,
)  # fmt: skip
from loka.model.layout import attention
from loka.model.run.onednn import bfloat16_products

SITES = [
    Site(0, "neuron", 2), Site(0, "neuron", 30), Site(1, "head", 1), Site(1, "kv", 1), Site(2, "attn"), Site(2, "mlp"),
]  # fmt: skip


def loss(model: Model) -> Tensor:
    batch = encode(model, ["the capital of a dog is", "the old man likes the garden"], ["warm bread", "a dog"])
    return -token_logprobs(logits(model, batch), batch.labels).sum()


def whole(model: Model, where: list[Slice]) -> list[Tensor]:
    """The slices of the full matrices' gradients, by autograd."""
    with unfrozen(model):
        loss(model).backward()
        return [s.read(model.parameters[s.name].grad) for s in where]


def test_gradients_are_slices_of_the_whole_matrix_gradients(tiny: Callable[[str], Model], architecture: str) -> None:
    model = tiny(architecture)
    where = slices(model, SITES)
    wanted = whole(model, where)
    with sliced(model, where) as trainable:
        value = loss(model)
        value.backward()
        for part, values, grad in zip(where, trainable.parameters, wanted, strict=True):
            assert grad.abs().max() > 1e-4 or part.name.endswith("bias"), part.name
            torch.testing.assert_close(values.grad, grad, atol=1e-9, rtol=1e-6)
        assert all(p.grad is None and not p.requires_grad for p in model.parameters.values())
    torch.testing.assert_close(float(loss(model)), float(value.detach()), atol=1e-9, rtol=0)


def test_biases_are_trained_too(tiny: Callable[[str], Model]) -> None:
    for architecture in ("Qwen2ForCausalLM", "GPT2LMHeadModel", "GPTNeoXForCausalLM"):
        model = tiny(architecture)
        where = slices(model, [Site(1, "kv", 0), Site(1, "head", 0)])
        biases = [i for i, s in enumerate(where) if s.name.endswith(".bias")]
        assert biases
        wanted = whole(model, where)
        assert max(float(wanted[i].abs().max()) for i in biases) > 1e-4


def test_no_gradient_of_a_full_matrix_is_formed(tiny: Callable[[str], Model]) -> None:
    model = tiny("LlamaForCausalLM")
    large: list[tuple[int, ...]] = []
    owned = {p.untyped_storage().data_ptr() for p in model.parameters.values()}

    class TensorShapes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.untyped_storage().data_ptr() not in owned:
                large.append(tuple(out.shape))
            return out

    where = slices(model, [Site(1, "neuron", 2)])
    with sliced(model, where):
        value = loss(model)
        with TensorShapes():
            value.backward()
    full = {(48, 32), (32, 48)}
    assert not full & set(large)
    with sliced(model, slices(model, [Site(1, "mlp")])):
        value = loss(model)
        with TensorShapes():
            value.backward()
    assert full & set(large)  # a full gradient would be seen


def test_a_step_is_written_into_the_model(tiny: Callable[[str], Model]) -> None:
    model = tiny("Phi3ForCausalLM")
    where = slices(model, SITES[:4])
    before = {name: p.clone() for name, p in model.parameters.items()}
    start = float(loss(model))
    with sliced(model, where) as trainable:
        optimizer = torch.optim.SGD(trainable.parameters, lr=1e-3)
        loss(model).backward()
        trainable.step(optimizer)
        for part, values in zip(where, trainable.parameters, strict=True):
            assert torch.equal(part.read(model.parameters[part.name]), values.detach())
        assert trainable.parameters[0].grad is None
    assert float(loss(model)) < start
    masks = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in before.items()}
    for part in where:
        masks[part.name].index_fill_(part.dim, part.index.to(model.device), True)
    assert all(torch.equal(p[~masks[n]], before[n][~masks[n]]) for n, p in model.parameters.items())


@pytest.mark.parametrize("context", [sliced, lambda model, where: unfrozen(model)])
def test_an_error_restores_an_ordinary_model(tiny: Callable[[str], Model], context: Callable) -> None:
    model = tiny("LlamaForCausalLM")
    with pytest.raises(RuntimeError, match="inside"), context(model, slices(model, SITES)):
        loss(model).backward()
        raise RuntimeError("inside")
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters.values())
    assert not any("forward" in vars(module) for module in model.hf.modules())


def test_checkpointed_blocks_run_twice_and_give_the_same_gradients(
    tiny: Callable[[str], Model], architecture: str
) -> None:
    model, runs, grads = tiny(architecture), [], []
    where = slices(model, SITES)
    state = {name: (m.training, getattr(m, "gradient_checkpointing", None)) for name, m in model.hf.named_modules()}
    handle = attention(model, 1).register_forward_pre_hook(lambda *_: runs.append(1))
    for on in (False, True):
        with checkpointed(model, on=on), sliced(model, where) as trainable:
            loss(model).backward()
            grads.append([p.grad for p in trainable.parameters])
    handle.remove()
    assert len(runs) == 1 + 2
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert state == {n: (m.training, getattr(m, "gradient_checkpointing", None)) for n, m in model.hf.named_modules()}


def test_a_model_without_checkpointing_is_refused(
    tiny: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("LlamaForCausalLM")
    monkeypatch.setattr("loka.model.train.train.GradientCheckpointingLayer", torch.nn.Bilinear)
    with pytest.raises(UserError, match="cannot checkpoint the blocks of LlamaForCausalLM"), checkpointed(model):
        pass


def test_steps_below_the_precision_of_bfloat16_add_up(tiny: Callable[[str], Model]) -> None:
    """A hundred steps add up to a thousandth, though each is far below the least change of a bfloat16 weight."""
    model = tiny("LlamaForCausalLM")
    model.hf.to(torch.bfloat16)
    where = slices(model, [Site(1, "neuron", 2)])
    before = [s.read(model.parameters[s.name]) for s in where]
    with sliced(model, where) as trainable:
        optimizer = torch.optim.SGD(trainable.parameters, lr=1e-5)
        for _ in range(100):
            for p in trainable.parameters:
                p.grad = torch.ones_like(p)
            trainable.step(optimizer)
    for part, old in zip(where, before, strict=True):
        now = part.read(model.parameters[part.name])
        assert now.dtype is torch.bfloat16
        assert torch.equal(now, (old.float() - 1e-3).to(torch.bfloat16)) or torch.allclose(
            now.float(), old.float() - 1e-3, atol=1e-6, rtol=2**-8
        )
        assert not torch.equal(now, old)


@pytest.mark.parametrize("how", ["by autocast", "by rounding"])
def test_passes_in_bfloat16_have_gradients_near_the_exact_ones(
    tiny: Callable[[str], Model], architecture: str, how: str
) -> None:
    model = tiny(architecture)
    model.hf.to(torch.float32)
    where, grads = slices(model, SITES), []
    for on in (False, True):
        low = (
            torch.autocast(model.device.type, torch.bfloat16, enabled=on)
            if how == "by autocast"
            else bfloat16_products(model, on=on)
        )
        with sliced(model, where) as trainable, low:
            loss(model).backward()
            grads.append(torch.cat([p.grad.flatten() for p in trainable.parameters]))
    assert all(g.dtype is torch.float32 for g in grads)
    assert how == "by rounding" or not torch.equal(*grads)  # only processors with bfloat16 products round
    assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"
    assert float(torch.cosine_similarity(*grads, dim=0)) > 0.99
