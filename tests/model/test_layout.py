"""On all architectures, a site's weights are those that make its activation and those that it acts through."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from loka import ablate
from loka._util.errors import UserError
from loka.knowledge import Case
from loka.model import Edit, Model, Site, encode, slices
from loka.model.run.hooks import point, record, run

Make = Callable[[str], Model]
UNITS = {"neuron": (0, 5, 47), "head": (0, 1, 3)}


@pytest.fixture(scope="module", autouse=True)
def tiny(tiny: Make) -> Make:
    """One model of each architecture for all tests here, and every test restores it."""
    made: dict[str, Model] = {}
    return lambda name: made[name] if name in made else made.setdefault(name, tiny(name))


def batch(model: Model):
    """Rows of one length, since nothing here depends on padding."""
    return encode(model, ["the capital of a dog is", "the old man likes the garden"], ["warm bread", "a dog"])


def silenced(units: list[int]) -> Callable[[Tensor], Tensor]:
    def hook(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, :, units] = 0
        return value

    return hook


def zeroed(model: Model, where: list) -> Edit:
    values = tuple(torch.zeros_like(s.read(model.parameters[s.name])) for s in where)
    return Edit(tuple(where), values, model.digest())


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


@pytest.mark.parametrize("part", UNITS)
def test_zeroing_the_writing_weights_zeroes_the_activation(
    tiny: Make, architecture: str, part: str, planted_case: Case
) -> None:
    model = tiny(architecture)
    given, units = batch(model), UNITS[part]
    edit = ablate.zero(model, planted_case, [Site(layer, part, u) for layer in range(3) for u in units])
    base = run(model, given, [])
    hooks = [(point(part, layer), silenced(list(units))) for layer in range(3)]
    assert all(far(run(model, given, [hook]), base) > 1e-3 for hook in hooks)
    hooked = run(model, given, hooks)
    with edit.applied(model):
        assert far(run(model, given, []), hooked) < 1e-9


def test_zeroing_the_reading_weights_of_a_neuron_zeroes_its_activation(tiny: Make, architecture: str) -> None:
    model = tiny(architecture)
    given, units = batch(model), UNITS["neuron"]
    edit = zeroed(model, slices(model, [Site(1, "neuron", u) for u in units], writes=False))
    hooked = run(model, given, [(point("neuron", 1), silenced(list(units)))])
    with edit.applied(model):
        assert far(run(model, given, []), hooked) < 1e-9


def test_zeroing_a_key_value_group_silences_its_heads(tiny: Make, architecture: str, planted_case: Case) -> None:
    model = tiny(architecture)
    if architecture == "Olmo2ForCausalLM":
        pytest.skip("its norm runs over the keys of all groups, so that zeroing one group's rescales the others'")
    given, size = batch(model), model.n_heads // model.n_kv_heads
    edit = ablate.zero(model, planted_case, [Site(1, "kv", 1)])
    heads = list(range(size, 2 * size))
    hooked = run(model, given, [(point("head", 1), silenced(heads))])
    assert far(hooked, run(model, given, [])) > 1e-3
    with edit.applied(model):
        assert far(run(model, given, []), hooked) < 1e-9


def test_the_query_rows_of_a_head_move_that_head_alone(tiny: Make, architecture: str) -> None:
    model = tiny(architecture)
    if architecture == "Olmo2ForCausalLM":
        pytest.skip("its norm runs over the queries of all heads")
    given, name = batch(model), point("head", 1)
    before = record(model, given, [name]).activations[name]
    with zeroed(model, slices(model, [Site(1, "head", 2)], writes=False)).applied(model):
        after = record(model, given, [name]).activations[name]
    moved = (after - before).abs().amax((0, 1, 3))
    assert moved[2] > 1e-3
    assert moved[[0, 1, 3]].max() < 1e-12


def cells(model: Model, sites: list[Site]) -> set[tuple[str, int, int]]:
    return {(s.name, s.dim, i) for s in slices(model, sites) for i in s.index.tolist()}


def test_sites_share_no_weight_and_cover_all(tiny: Make, architecture: str) -> None:
    model = tiny(architecture)
    neurons = [Site(1, "neuron", i) for i in range(model.n_neurons)]
    heads = [Site(1, "head", i) for i in range(model.n_heads)]
    groups = [Site(1, "kv", i) for i in range(model.n_kv_heads)] if model.n_kv_heads < model.n_heads else []
    seen: set[tuple[str, int, int]] = set()
    for site in [*neurons, *heads, *groups]:
        own = cells(model, [site])
        assert own
        assert not own & seen
        seen |= own
    assert seen == cells(model, [Site(1, "attn"), Site(1, "mlp")])
    assert all(model.block(1) + "." in name for name, _, _ in seen)
    matrices = {n for n, p in model.parameters.items() if n.startswith(model.block(1) + ".") and p.ndim == 2}
    assert matrices == {name for name, _, _ in seen if not name.endswith("bias")}


def test_layers_share_no_weight(tiny: Make, architecture: str) -> None:
    model = tiny(architecture)
    assert not cells(model, [Site(0, "attn"), Site(0, "mlp")]) & cells(model, [Site(1, "attn"), Site(1, "mlp")])


def test_missing_sites_are_refused(tiny: Make, planted_case: Case) -> None:
    model = tiny("LlamaForCausalLM")
    for site, allowed in (
        (Site(3, "head", 0), "layers are 0 to 2"),
        (Site(0, "head", 4), "heads are 0 to 3"),
        (Site(0, "kv", 2), "kvs are 0 to 1"),
        (Site(0, "neuron", 48), "neurons are 0 to 47"),
        (Site(0, "resid"), "owns no weights"),
    ):
        with pytest.raises(UserError, match=allowed) as caught:
            slices(model, [site])
        assert str(site) in str(caught.value)
    with pytest.raises(UserError, match="at least one site"):
        ablate.zero(model, planted_case, [])
