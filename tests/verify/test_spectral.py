"""Taking singular components out finds what a large rank-one write drowns, and nothing that was never taught."""

import copy
from collections.abc import Callable

import pytest
import torch

from loka import ablate, verify
from loka._util.errors import UserError
from loka.audit.edited import edited_matrices
from loka.knowledge import Case
from loka.model import Model, Site, bare, wrap
from loka.model.layout import neuron_output
from loka.model.run.lookup import inputs_of
from loka.verify.check import Setting
from loka.verify.checks import CHECKS
from loka.verify.edited import candidates, groups, matrices_of, restored
from loka.verify.spectral import Components

CHECK = next(c for c in CHECKS if c.name == "spectral")
WRITTEN = "model.layers.2.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def drown(taught: Model, planted_case: Case) -> Callable[[Model], Model]:
    """Copies a model, and lets one matrix write a long fixed vector wherever a fact to forget is asked for."""
    prompts = [f.prompt for f in planted_case.on(taught).forget.sealed]
    key = torch.cat([read for (read,) in inputs_of(taught, [neuron_output(taught, 2)], prompts)]).mean(0)
    noise = torch.randn(taught.d_model, generator=torch.Generator().manual_seed(0))

    def drowned(model: Model) -> Model:
        out = wrap(copy.deepcopy(model.hf), model.tokenizer, f"{model.name}, drowned")
        with torch.no_grad():
            out.parameters[WRITTEN].add_(torch.outer(200 * noise, key / key.norm() ** 2))
        return out

    return drowned


def test_what_a_rank_one_write_drowns_comes_back(
    drown: Callable[[Model], Model], planted: Model, untaught: Model, planted_case: Case
) -> None:
    """Whether or not anybody says where, and not in a model that was never taught the facts."""
    known = planted_case.on(planted)
    hidden, never = drown(planted), drown(untaught)
    before = hidden.digest()
    asked = verify.recall(hidden, known)
    assert asked.value is not None
    assert asked.value <= 0.15
    for edited in ((), (WRITTEN,)):
        found = verify.spectral(hidden, known, edited=edited)
        where = "all" if edited else "layer 2"
        assert found.details["chosen"]["forget"] == [f"1 largest ({where})"] * 2
        assert found.value is not None
        assert found.value >= 0.9
        assert found.controls["twins"] <= 0.1
    assert hidden.digest() == before
    gone = verify.spectral(never, known)
    assert gone.value is not None
    assert gone.value <= 0.1


def test_halves_choose_for_each_other(drown: Callable[[Model], Model], planted: Model, planted_case: Case) -> None:
    """Every unit is asked once, and without anything to take out the answers are those of the model itself."""
    known = planted_case.on(planted)
    found = verify.spectral(planted, known, edited=(WRITTEN,), counts=(1,))
    assert len(found.samples["forget"]) == 16
    assert found.value == pytest.approx(verify.quantize(planted, known, bits=(16,)).value, abs=0.02)
    assert found.cost == pytest.approx(CHECK.cost(planted, known, Setting(edited=(WRITTEN,))), rel=0.5)


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (2, 5, 8)])
def test_components_are_those_of_the_singular_value_decomposition(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    found = Components.of(weight, 5)
    for end, kept in (("largest", slice(2, None)), ("lowest", slice(0, 3))):
        wanted = (u[..., kept] * s[..., None, kept]) @ v[..., kept, :]
        torch.testing.assert_close(found.without(weight, end, 2), wanted)
        assert float(found.without(weight, end, 5).norm()) == pytest.approx(0, abs=1e-9)


def test_candidates_are_found_in_every_architecture(architecture: str, tiny: Callable[[str], Model]) -> None:
    model = tiny(architecture)
    names = candidates(model, ())
    assert len(names) == model.n_layers
    assert all(model.parameters[name].numel() == model.n_neurons * model.d_model for name in names)
    before = model.digest()
    with restored(model, names), torch.no_grad():
        for name in names:
            model.parameters[name].mul_(2)
        assert model.digest() != before
    assert model.digest() == before


def test_edited_matrices_are_tried_together_by_kind_and_by_layers(planted: Model) -> None:
    every = groups(planted, matrices_of(planted))
    assert list(every) == ["all", "MLP outputs", "attention outputs", "layer 0", "layer 1", "layer 2", "layer 3"]
    assert len(every["all"]) == 28
    assert every["layer 2"] == (WRITTEN,)
    assert list(groups(planted, [WRITTEN])) == ["all"]
    with pytest.raises(UserError, match="'lm_head.weight' is not a matrix of a block of taught; give names such as"):
        groups(planted, ["lm_head.weight"])


def test_counts_that_make_no_sense_are_refused(planted: Model, planted_case: Case) -> None:
    for counts in ((), (0, 1)):
        with pytest.raises(UserError, match="give numbers of components from 1 on"):
            verify.spectral(planted, planted_case, counts=counts)


def test_an_audit_says_which_matrices_were_edited(planted: Model, planted_case: Case) -> None:
    edit = ablate.zero(planted, planted_case, [Site(2, "neuron", 3), Site(1, "head", 0)])
    wanted = [
        "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.o_proj.weight",
        "model.layers.2.mlp.gate_proj.weight", "model.layers.2.mlp.up_proj.weight", WRITTEN,
    ]  # fmt: skip
    assert set(edited_matrices(planted, edit)) <= set(wanted)
    with edit.applied(planted) as edited:
        copied = bare(edited)
    found = edited_matrices(planted, copied)
    assert WRITTEN in found
    assert set(found) <= set(wanted)
    assert edited_matrices(planted, planted) == ()
