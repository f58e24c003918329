"""A model gives the same block by block as in one pass, and taps are at TransformerLens' hook points."""

from collections.abc import Callable

import torch

from loka.model import Model, Part, encode, logits
from loka.model.run.block_runner import Past, use_attention
from loka.model.run.hooks import record
from loka.model.run.interventions import prompt
from loka.model.run.trace import trace

POINTS: dict[Part, str] = {
    "q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v", "head": "attn.hook_z", "neuron": "mlp.hook_post",
    "attn": "attn.hook_out", "mlp": "mlp.hook_out", "resid": "hook_resid_post",
}  # fmt: skip


def test_taps_are_at_the_bridges_hook_points(tiny: Callable[[str], Model], architecture: str) -> None:
    model = tiny(architecture)
    batch = encode(model, ["the capital of a dog is"], ["warm bread"])
    whole = {"attn": "hook_attn_out", "mlp": "hook_mlp_out"} if architecture == "BloomForCausalLM" else {}
    points = POINTS | whole  # the modules of BLOOM's block add the stream themselves
    names = {(part, layer): f"blocks.{layer}.{name}" for part, name in points.items() for layer in range(3)}
    wanted = record(model, batch, list(names.values())).activations
    with torch.no_grad():
        run = trace(model, prompt(batch, 0), [*names, ("kv", 1)])
    for place, name in names.items():
        found, value = run.activations[place][0], wanted[name][0, :-1]
        assert found.shape == (7, model.units(place[0]), found.shape[2])
        assert value.abs().max() > 1e-3
        # the rotary angles are computed in single precision, in another order
        near = 1e-5 if model.device.type == "cpu" else 1e-3  # a GPU rounds more
        torch.testing.assert_close(found.flatten(1), value.flatten(1), atol=near, rtol=1e-5)
    for both, one in zip(run.activations["kv", 1], "kv", strict=True):
        assert torch.equal(both, run.activations[one, 1][0])  # type: ignore[index]


def test_block_by_block_is_the_forward_pass(tiny: Callable[[str], Model], architecture: str) -> None:
    """From the first position, from a later one after cached keys and values, at the end alone, and for the logits."""
    model = tiny(architecture)
    batch = encode(model, ["the capital of a dog is"], ["warm bread"])
    with torch.no_grad(), use_attention(model):
        run = trace(model, prompt(batch, 0), [])
        torch.testing.assert_close(run.runner.logits(run.leaving[-1])[:, -2:], logits(model, batch), atol=1e-12, rtol=0)
        for layer in range(3):
            rows = run.entering[layer][:, 4:].expand(2, -1, -1)
            later = run.runner.block(layer, rows, 4, run.past[layer].before(4))
            ending = run.runner.ending(layer, rows, 4, run.past[layer].before(4), 2)
            wanted = run.leaving[layer][:, 4:].expand(2, -1, -1)
            torch.testing.assert_close(later, wanted, atol=1e-12, rtol=0)
            torch.testing.assert_close(ending, wanted[:, -2:], atol=1e-12, rtol=0)
            alone = run.runner.block(layer, rows, 4, Past(), attn=run.attn[layer][:, 4:].expand(2, -1, -1))
            torch.testing.assert_close(alone, wanted, atol=1e-12, rtol=0)
