"""Low-rank training agrees bit for bit with the same training written out by hand."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from loka.model import Model, encode, logits, low_rank, token_logprobs
from loka.model.anatomy import is_linear
from loka.model.layout import head_output_name, neuron_output_name

Pair = tuple[nn.Parameter, nn.Parameter]


def loss(model: Model) -> Tensor:
    batch = encode(model, ["the capital of a dog is", "the old man likes the garden"], ["warm bread", "a dog"])
    return -token_logprobs(logits(model, batch), batch.labels).sum()


def trained(model: Model, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The loss before each of three steps of AdamW."""
    optimizer, losses = torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.0), []
    for _ in range(3):
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    return losses


def linear_maps(model: Model) -> dict[str, nn.Module]:
    """Every linear map of every block, in the model's order."""
    return {
        name: module
        for name, module in model.hf.named_modules()
        if name.startswith(model.block(0).removesuffix("0")) and is_linear(module)
    }


def sizes(module: nn.Module) -> tuple[int, int]:
    """A map's input and output features."""
    shape = module.get_parameter("weight").shape
    return (shape[0], shape[1]) if type(module).__name__ == "Conv1D" else (shape[1], shape[0])


@contextmanager
def by_hook(modules: Sequence[nn.Module], pairs: Sequence[Pair], scale: float) -> Iterator[None]:
    """Add the change to the map's output, by a hook."""
    handles = [
        module.register_forward_hook(lambda _, given, out, down=down, up=up: out + given[0] @ down @ up * scale)
        for module, (down, up) in zip(modules, pairs, strict=True)
    ]
    yield
    for handle in handles:
        handle.remove()


@contextmanager
def by_forward(modules: Sequence[nn.Module], pairs: Sequence[Pair], scale: float) -> Iterator[None]:
    """Replace the map's forward function by torch's own product plus the change."""
    for module, (left, right) in zip(modules, pairs, strict=True):
        own = module.forward
        module.forward = lambda x, own=own, left=left, right=right: own(x) + scale * (x @ left @ right)
    yield
    for module in modules:
        del module.forward


def normal(d_in: int, rank: int, generator: torch.Generator) -> Tensor:
    return torch.randn(d_in, rank, generator=generator) / d_in**0.5


def uniform(d_in: int, rank: int, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(d_in, rank, generator=generator) - 1) / d_in**0.5


@pytest.mark.parametrize("kind", ["relearning", "ablation"])
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "GPT2LMHeadModel"])
def test_training_agrees_with_the_written_out_one(tiny: Callable[[str], Model], name: str, kind: str) -> None:
    """In single precision: oneDNN multiplies under a hook, torch in a replaced forward function."""
    model = tiny(name)
    model.hf.float()
    if kind == "relearning":
        names, draw, replaced = list(linear_maps(model)), normal, by_hook
        rank, scale, seed, given = 8, 2.0, 0, {}
    else:
        names = [f(model, layer) for layer in (2, 0) for f in (neuron_output_name, head_output_name)]
        rank, scale, seed, draw, replaced = 3, 1.7, 4, uniform, by_forward
        given = {"modules": names, "rank": 3, "scale": 1.7, "seed": 4, "start": "uniform", "torch_products": True}
    modules = [model.hf.get_submodule(n) for n in names]
    generator, pairs = torch.Generator().manual_seed(seed), []
    for module in modules:
        d_in, d_out = sizes(module)
        start = draw(d_in, rank, generator).to(model.device)
        pairs.append((nn.Parameter(start), nn.Parameter(torch.zeros(rank, d_out, device=model.device))))
    with replaced(modules, pairs, scale):
        wanted = trained(model, [p for pair in pairs for p in pair])
    with low_rank(model, **given) as adapters:
        found = trained(model, adapters.parameters)
        changes = adapters.factors()
    assert torch.equal(torch.stack(found), torch.stack(wanted))
    assert found[-1] < found[0]
    for n, module, (down, up), change in zip(names, modules, pairs, changes, strict=True):
        assert torch.equal(adapters.down[n], down)
        assert torch.equal(adapters.up[n], up)
        left, right = (scale * down).detach().cpu(), up.detach().cpu()
        stored = (left, right) if type(module).__name__ == "Conv1D" else (right.t(), left.t())
        assert torch.equal(change.left, stored[0])
        assert torch.equal(change.right, stored[1])


def test_factors_change_nothing_before_the_first_step_and_after_the_context(
    architecture: str, tiny: Callable[[str], Model]
) -> None:
    model = tiny(architecture)
    before = loss(model)
    for torch_products in (False, True):
        with low_rank(model, torch_products=torch_products) as adapters:
            assert torch.equal(loss(model), before)
            assert set(adapters.down) == set(linear_maps(model))
            with torch.no_grad():
                for up in adapters.up.values():
                    up.add_(1)
            assert not torch.equal(loss(model), before)
        assert torch.equal(loss(model), before)
    assert not any("forward" in m.__dict__ or m._forward_hooks for m in model.hf.modules())
