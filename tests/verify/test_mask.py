"""A trained mask finds what a few neurons drown, and nothing that was never taught."""

import copy
from collections.abc import Callable

import pytest
import torch

from loka import verify
from loka._util.errors import UserError
from loka.knowledge import Case
from loka.model import Model, Slice, encode, logits, wrap
from loka.model.layout import neuron_output
from loka.model.run.lookup import inputs_of
from loka.model.run.modules import replace_input
from loka.verify.edited import matrices_of, output_maps
from loka.verify.mask import _descend, _trained, switched_off

WRITTEN = "model.layers.2.mlp.down_proj.weight"
NEURONS = 3


@pytest.fixture(scope="module")
def loudest(taught: Model, planted_case: Case) -> list[int]:
    """The neurons of one layer that are loudest where a fact to forget is asked for."""
    prompts = [f.prompt for f in planted_case.on(taught).forget.sealed]
    read = torch.cat([read for (read,) in inputs_of(taught, [neuron_output(taught, 2)], prompts)])
    return read.abs().mean(0).topk(NEURONS).indices.tolist()


@pytest.fixture(scope="module")
def drown(loudest: list[int]) -> Callable[[Model], Model]:
    """Copies a model, and lets its loudest neurons write long fixed vectors."""

    def drowned(model: Model) -> Model:
        out = wrap(copy.deepcopy(model.hf), model.tokenizer, f"{model.name}, drowned")
        noise = torch.randn(model.d_model, NEURONS, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            out.parameters[WRITTEN][:, loudest] = 20 * noise
        return out

    return drowned


def test_what_a_few_neurons_drown_comes_back(
    drown: Callable[[Model], Model], planted: Model, untaught: Model, planted_case: Case
) -> None:
    """Whether or not anybody says where, and not in a model that was never taught the facts."""
    known = planted_case.on(planted)
    hidden, never = drown(planted), drown(untaught)
    asked, before = verify.quantize(hidden, known, bits=(16,)), hidden.digest()
    assert asked.value is not None
    assert asked.value <= 0.2
    for edited in ((), (WRITTEN,)):
        found = verify.mask(hidden, known, edited=edited)
        assert found.value is not None
        assert found.value >= 0.9
        assert found.controls["twins"] <= 0.1
        assert all(0 < share <= 0.1 for share in found.details["off"]["forget"])
    assert hidden.digest() == before
    gone = verify.mask(never, known)
    assert gone.value is not None
    assert gone.value <= 0.1


def test_the_rows_that_drown_are_the_ones_switched_off(
    drown: Callable[[Model], Model], loudest: list[int], planted: Model, planted_case: Case
) -> None:
    hidden, items = drown(planted), list(planted_case.on(planted).forget.sealed)
    (rows,) = _trained(hidden, output_maps(hidden, ()), items, 0.1, 10)
    assert rows.name == WRITTEN
    assert rows.index.tolist() == sorted(loudest)


def test_a_row_switched_off_is_a_unit_that_says_nothing(architecture: str, tiny: Callable[[str], Model]) -> None:
    """In every architecture, zero weights give what a gate of zero gives; afterwards the weights are the same."""
    model = tiny(architecture)
    maps, before = output_maps(model, matrices_of(model)), model.digest()
    assert sorted(m.size for m in maps) == sorted([model.n_neurons, model.n_heads * model.d_head] * model.n_layers)
    batch = encode(model, ["the old man likes the garden"], ["and a dog"])
    for m in maps[:2]:
        index = torch.tensor([1, 4, 5])
        gate = torch.ones(m.size, dtype=torch.float64).index_fill(0, index, 0.0).to(model.device)
        with torch.no_grad(), replace_input(m.module, lambda x, gate=gate: x * gate):
            wanted = logits(model, batch)
        with torch.no_grad(), switched_off(model, [Slice(m.name, m.dim, index)]):
            torch.testing.assert_close(logits(model, batch), wanted)
        assert not torch.allclose(logits(model, batch), wanted)
    assert model.digest() == before


def test_a_step_follows_the_gradient_and_keeps_the_budget() -> None:
    gates = [torch.ones(3), torch.ones(2)]
    _descend(gates, [torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.25])], 2)
    assert [gate.tolist() for gate in gates] == [[0.75, 1.0, 1.0], [0.875, 1.0]]
    _descend(gates, [torch.ones(3), torch.full((2,), float("nan"))], 2)
    assert gates[0].tolist() == [0.75, 1.0, 1.0]


def test_masks_that_make_no_sense_are_refused(planted: Model, planted_case: Case) -> None:
    with pytest.raises(UserError, match="share is 0.7; let a mask switch off more than 0 and at most 0.5"):
        verify.mask(planted, planted_case, share=0.7)
    with pytest.raises(UserError, match="steps is 0; train a mask for at least 1 step"):
        verify.mask(planted, planted_case, steps=0)
