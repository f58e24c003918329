"""Residual states on the graph."""

from collections.abc import Callable

import torch

from loka.model import Model, pad
from loka.model.run.states import label_states


def test_label_states_are_the_blocks_outputs_where_labels_are(architecture: str, tiny: Callable[[str], Model]) -> None:
    model = tiny(architecture)
    batch = pad(model, [[4, 5, 6, 7, 8], [9, 10, 11, 12, 13]], [2, 1])
    with torch.no_grad():
        states = model.hf(**batch.inputs(), use_cache=False, output_hidden_states=True).hidden_states
    hooks = [len(m._forward_hooks) for m in model.hf.modules()]
    for layer in range(model.n_layers - 1):  # transformers norms the last layer's state
        torch.testing.assert_close(label_states(model, batch, layer), states[layer + 1][:, -3:-1])
    last = label_states(model, batch, model.n_layers - 1)
    assert last.shape == (2, 2, model.d_model)
    assert [len(m._forward_hooks) for m in model.hf.modules()] == hooks
