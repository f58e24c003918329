"""A hook point records the input of the weights after it, and gradients there are derivatives."""

from collections.abc import Callable

import torch
from torch import Tensor

from loka.model import Model, encode
from loka.model.layout import head_output, neuron_output
from loka.model.run.hooks import point, record, run


def test_recorded_activations_are_the_inputs_of_the_output_maps(
    tiny: Callable[[str], Model], architecture: str
) -> None:
    model = tiny(architecture)
    batch = encode(model, ["the capital of a dog is"], ["warm bread"])
    seen: dict[str, Tensor] = {}
    handles = []
    for layer in range(model.n_layers):
        for part, module in (("neuron", neuron_output(model, layer)), ("head", head_output(model, layer))):
            name = point(part, layer)
            handles.append(module.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]})))
    try:
        model.hf(**batch.inputs())
    finally:
        for handle in handles:
            handle.remove()
    found = record(model, batch, list(seen))
    assert len(found.activations) == 2 * model.n_layers
    for name, value in found.activations.items():
        assert value.abs().max() > 1e-3
        # the rotary angles are computed in single precision, in another order
        near = 1e-5 if model.device.type == "cpu" else 1e-3  # a GPU rounds more
        flat = value.flatten(2) if value.ndim == 4 else value
        torch.testing.assert_close(flat, seen[name].view(flat.shape), atol=near, rtol=1e-5)


def test_gradients_are_derivatives(tiny: Callable[[str], Model], architecture: str) -> None:
    model = tiny(architecture)
    batch = encode(model, ["the capital of a dog is"], ["warm bread"])
    names = [point(part, layer) for layer in range(3) for part in ("neuron", "head")]
    found = record(model, batch, names, grad=True)
    aim = torch.randn(found.logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    aim = aim.to(model.device)
    grads = torch.autograd.grad((found.logits * aim).sum(), [found.activations[n] for n in names])
    size = 1e-6 if architecture == "OPTForCausalLM" else 2e-4  # ReLU has corners; other norms are in single precision
    for name, grad in zip(names, grads, strict=True):
        way = torch.randn(grad.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        way = way.to(model.device)

        def moved(size: float, name: str = name, way: Tensor = way) -> float:
            with torch.no_grad():
                return float((run(model, batch, [(name, lambda value: value + size * way)]) * aim).sum())

        slope = (moved(size) - moved(-size)) / (2 * size)
        torch.testing.assert_close(float((grad * way).sum()), slope, rtol=1e-2, atol=3e-2)
    assert not any(p.grad is not None for p in model.parameters.values())
