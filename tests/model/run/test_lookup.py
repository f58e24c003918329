"""Inputs and outputs of modules are read without running the layers above them."""

from collections.abc import Callable

import torch

from loka.model import Model, pad
from loka.model.layout import neuron_output
from loka.model.run.lookup import inputs_at, outputs_at


def test_the_pass_ends_after_the_last_module_that_is_read(architecture: str, tiny: Callable[[str], Model]) -> None:
    model = tiny(architecture)
    batch, at = pad(model, [[4, 5, 6, 7, 8], [9, 10, 11, 12, 13]], [1, 1]), torch.tensor([2, 4])
    first, last = model.hf.get_submodule(model.block(0)), model.hf.get_submodule(model.block(model.n_layers - 1))
    down, ran, seen = neuron_output(model, 0), [], []
    handles = [
        last.register_forward_hook(lambda *_: ran.append(True)),
        down.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0])),
    ]
    hooks = [len(m._forward_hooks) for m in model.hf.modules()]
    (read,), (written,) = inputs_at(model, [down], batch, at), outputs_at(model, [first], batch, at)
    assert not ran
    assert [len(m._forward_hooks) for m in model.hf.modules()] == hooks
    with torch.no_grad():
        states = model.hf(**batch.inputs(), use_cache=False, output_hidden_states=True).hidden_states
    assert ran
    for handle in handles:
        handle.remove()
    rows = torch.arange(2)
    torch.testing.assert_close(read, seen[-1].view(2, 5, -1)[rows, at])
    torch.testing.assert_close(written, states[1][rows, at])
