"""Rounded weights are near the true ones on every architecture, and the copy has no hooks."""

from collections.abc import Callable

import pytest
import torch

from loka._util.errors import UserError
from loka.model import Model
from loka.model.io.quantize import bare, quantized, round_to
from loka.model.run.states import last_states, read_out


def test_rounding_is_to_the_nearest_level() -> None:
    weight = torch.randn(5, 150, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rounded = round_to(weight, 4, group=64)
    for start in (0, 64, 128):
        part, near = weight[:, start : start + 64], rounded[:, start : start + 64]
        step = part.abs().amax(1, keepdim=True) / 7
        assert ((part - near).abs() <= step / 2 + 1e-12).all()
        assert torch.allclose(near / step, (near / step).round(), atol=1e-9)
    assert torch.equal(round_to(torch.zeros(2, 3), 8), torch.zeros(2, 3))


def test_matrices_of_the_blocks_are_rounded_and_nothing_else(architecture: str, tiny: Callable[[str], Model]) -> None:
    model = tiny(architecture)
    before = model.digest()
    copy = quantized(model, 4)
    inside = model.block(0).removesuffix("0")
    for name, p in model.parameters.items():
        same = torch.equal(p, copy.parameters[name])
        assert same != (name.startswith(inside) and p.ndim == 2), name
    ids = model.tokenizer("the old man likes the garden", return_tensors="pt")["input_ids"].to(model.device)
    with torch.no_grad():
        true, four, twelve = (m.hf(ids).logits for m in (model, copy, quantized(model, 12)))
    assert (twelve - true).abs().mean() < 0.2 * (four - true).abs().mean()
    assert model.digest() == before
    with pytest.raises(UserError, match="17 bits"):
        quantized(model, 17)


def test_a_bare_model_has_no_hooks(tiny: Callable[[str], Model]) -> None:
    model = tiny("LlamaForCausalLM")
    ids = model.tokenizer("the old man", return_tensors="pt")["input_ids"].to(model.device)
    plain = model.hf(ids).logits
    model.hf.lm_head.register_forward_hook(lambda module, inputs, out: out * 0)
    assert float(model.hf(ids).logits.abs().max()) == 0
    assert torch.equal(bare(model).hf(ids).logits, plain)


def test_last_states_read_out_are_the_logits(architecture: str, tiny: Callable[[str], Model]) -> None:
    model = tiny(architecture)
    prompts = ["the old man likes the garden", "a dog"]
    states = last_states(model, prompts)
    assert states.shape == (2, model.n_layers, model.d_model)
    for prompt, of in zip(prompts, states, strict=True):
        ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)
        with torch.no_grad():
            logits = model.hf(ids).logits[0, -1]
        torch.testing.assert_close(read_out(model, of[-1]), logits, rtol=1e-5, atol=1e-5)


def test_a_weight_that_the_architecture_lacks_is_named(tiny: Callable[[str], Model]) -> None:
    model = tiny("LlamaForCausalLM")
    head = model.hf.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(len(head.weight)))
    try:
        with pytest.raises(UserError, match=r"has a weight 'lm_head.bias' that a plain LlamaForCausalLM does not have"):
            bare(model)
    finally:
        head.bias = None
