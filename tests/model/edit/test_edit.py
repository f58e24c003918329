"""An edit can be put in place, taken out bit for bit, written down and read again, on its own weights only."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from loka._util.errors import LokaError, UserError
from loka.model import (
    Edit,
    EditRecord,
    Factors,
    Model,
    Site,
    Slice,
    capture,
    encode,
    factors,
    logits,
    scratch,
    slices,
    wrap,
)
from loka.model.anatomy import feature_dim
from loka.model.edit.summary import untouched
from loka.model.layout import head_output_name, neuron_output, neuron_output_name

Make = Callable[[str], Model]
SITES = [Site(0, "head", 1), Site(1, "neuron", 3), Site(1, "neuron", 40), Site(2, "kv", 0)]


@pytest.fixture(params=["LlamaForCausalLM", "GPT2LMHeadModel", "Phi3ForCausalLM"])
def model(tiny: Make, request: pytest.FixtureRequest) -> Model:
    return tiny(request.param)


def random_edit(model: Model, sites: list[Site] = SITES, seed: int = 0) -> Edit:
    generator = torch.Generator().manual_seed(seed)
    where = slices(model, sites)
    values = [s.read(model.parameters[s.name]) for s in where]
    values = [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in values]
    return Edit(tuple(where), tuple(values), model.digest(), EditRecord("random", arguments={"seed": seed}))


def low_rank(model: Model, seed: int = 0, rank: int = 2) -> Edit:
    """Random factors on an MLP's down map and an attention's output, and slices, one of them on the same matrix."""
    generator = torch.Generator().manual_seed(seed)
    names = [neuron_output_name(model, 1), head_output_name(model, 2)]
    parts = []
    for name in names:
        module = model.hf.get_submodule(name)
        d_out, d_in = (module.weight.shape[feature_dim(module, out=out)] for out in (True, False))
        left, right = (torch.randn(shape, generator=generator).double() for shape in ((d_in, rank), (rank, d_out)))
        parts.append(factors(model, name, left, right))
    slices_of = random_edit(model, [Site(1, "neuron", 3), Site(0, "head", 1)], seed)
    return Edit(slices_of.slices, slices_of.values, model.digest(), EditRecord("random"), tuple(parts))


def weights(model: Model) -> dict[str, Tensor]:
    return {name: p.clone() for name, p in model.parameters.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


def said(model: Model) -> Tensor:
    with torch.no_grad():
        return logits(model, encode(model, ["the capital of a dog is"], ["warm bread"]))


def test_applied_changes_only_its_slices_and_restores_every_bit(model: Model) -> None:
    before, logits_before, digest = weights(model), said(model), model.digest()
    edit = random_edit(model)
    with edit.applied(model) as edited:
        assert edited is model
        assert model.digest() != digest
        assert (said(model) - logits_before).abs().max() > 1e-2
        masks = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in before.items()}
        for where, values in zip(edit.slices, edit.values, strict=True):
            assert torch.equal(where.read(model.parameters[where.name]).cpu(), values)
            masks[where.name].index_fill_(where.dim, where.index.to(model.device), True)
        for name, p in model.parameters.items():
            assert torch.equal(p != before[name], masks[name])
        assert sum(int(m.sum()) for m in masks.values()) == edit.parameters
    assert same(weights(model), before)
    assert model.digest() == digest
    assert torch.equal(said(model), logits_before)


def test_an_error_inside_restores_every_bit_too(model: Model) -> None:
    before = weights(model)
    with pytest.raises(RuntimeError, match="inside"), random_edit(model).applied(model):
        assert not same(weights(model), before)
        raise RuntimeError("inside")
    assert same(weights(model), before)
    assert not model.edits


def test_rows_and_columns_of_one_matrix_are_restored_and_counted_once(tiny: Make) -> None:
    model = tiny("LlamaForCausalLM")
    name = "model.layers.0.mlp.up_proj.weight"
    where = (Slice(name, 0, torch.tensor([1, 4])), Slice(name, 1, torch.tensor([0, 2, 5])))
    edit = Edit(where, (torch.ones(2, 32), torch.full((48, 3), 2.0)), model.digest())
    before = weights(model)
    with edit.applied(model):
        changed = int((model.parameters[name] != before[name]).sum())
    assert edit.parameters == changed == 2 * 32 + 48 * 3 - 2 * 3
    assert same(weights(model), before)


def test_factors_move_what_a_map_writes_and_come_off_bit_for_bit(architecture: str, tiny: Make) -> None:
    """However the architecture stores its weights: GPT-2's maps are transposed."""
    model = tiny(architecture)
    before, d_in, d_out = weights(model), model.n_neurons, model.d_model
    left, right, x = torch.randn(d_in, 2).double(), torch.randn(2, d_out).double(), torch.randn(4, d_in).double()
    down = neuron_output(model, 1)
    x, change = x.to(model.device), (left @ right).to(model.device)
    wanted = down(x) + x @ change
    edit = Edit((), (), model.digest(), EditRecord(), (factors(model, neuron_output_name(model, 1), left, right),))
    with edit.applied(model):
        assert torch.allclose(down(x), wanted, atol=1e-12)
        assert {n for n in before if not torch.equal(before[n], model.parameters[n])} == {edit.factors[0].name}
    assert same(weights(model), before)


def test_factors_and_slices_in_one_edit(model: Model, tmp_path: Path) -> None:
    edit, before, digest = low_rank(model), weights(model), model.digest()
    with edit.applied(model):
        first, digest_after = said(model), model.digest()
        changed = {n: p != before[n] for n, p in model.parameters.items()}
        for where, values in zip(edit.slices, edit.values, strict=True):  # slices are written last
            assert torch.equal(where.read(model.parameters[where.name]).cpu(), values)
    assert same(weights(model), before)
    assert model.digest() == digest
    assert edit.parameters == sum(int(c.sum()) for c in changed.values())
    norms = edit.summary(model).norms
    assert {n for n, c in changed.items() if c.any()} == set(norms)
    again = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    assert again.digest() == edit.digest() != low_rank(model, seed=1).digest()
    assert (tmp_path / "edit.safetensors").stat().st_size < 20_000
    again.apply_(model)
    assert model.digest() == digest_after
    assert torch.equal(said(model), first)


def test_factors_come_off_after_an_error_and_the_same_matrix_may_have_several(model: Model) -> None:
    before, one, two = weights(model), low_rank(model), low_rank(model, seed=1)
    both = Edit((), (), model.digest(), EditRecord(), (*one.factors, *two.factors))
    with pytest.raises(RuntimeError, match="inside"), both.applied(model):
        name = one.factors[0].name
        change = (model.parameters[name] - before[name]).cpu()
        wanted = sum(f.left @ f.right for f in both.factors if f.name == name)
        assert torch.allclose(change, wanted, atol=1e-12)
        raise RuntimeError("inside")
    assert same(weights(model), before)


def test_factors_that_do_not_fit_are_refused_whole(model: Model) -> None:
    edit, before = low_rank(model), weights(model)
    good, last = edit.factors
    bad = Edit(edit.slices, edit.values, edit.made_for, {}, (good, Factors(last.name, last.left[:1], last.right)))
    with pytest.raises(UserError, match=r"factors of shape \(1, \d+\) do not fit .* of shape"):
        bad.apply_(model)
    assert same(weights(model), before)
    strange = Edit((), (), edit.made_for, {}, (Factors("no.weight", last.left, last.right),))
    with pytest.raises(UserError, match=r"changes no\.weight, which"):
        strange.apply_(model)


def test_a_saved_edit_says_the_same_bit_for_bit(model: Model, tmp_path: Path) -> None:
    edit = random_edit(model)
    again = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    with edit.applied(model):
        first = said(model)
    with again.applied(model):
        assert torch.equal(said(model), first)
    assert again.digest() == edit.digest()
    assert again.record == edit.record
    assert again.made_for == edit.made_for
    assert list(tmp_path.iterdir()) == [tmp_path / "edit.safetensors"]
    assert edit.save(tmp_path / "b.safetensors").read_bytes() == (tmp_path / "edit.safetensors").read_bytes()
    assert random_edit(model, seed=1).digest() != edit.digest()


def test_capture_holds_what_the_slices_hold_now(model: Model) -> None:
    edit = random_edit(model)
    with edit.applied(model):
        captured = capture(model, list(edit.slices), edit.made_for, EditRecord())
    assert captured.digest() == edit.digest()


def test_other_weights_are_refused(model: Model) -> None:
    edit = random_edit(model)
    other = wrap(copy.deepcopy(model.hf), model.tokenizer, "other")
    with edit.applied(other):  # a copy has the same weights, so the edit is its own
        assert list(other.edits) == [edit]
    with torch.no_grad():
        next(iter(other.parameters.values()))[0, 0] += 1e-6
    for use in (edit.apply_, edit.summary, lambda m: edit.applied(m).__enter__()):
        with pytest.raises(UserError, match=f"made for weights {edit.made_for[:12]}, but other has"):
            use(other)


def test_another_architecture_is_refused_by_name(tiny: Make) -> None:
    edit = random_edit(tiny("LlamaForCausalLM"))
    with pytest.raises(UserError, match=r"changes model\.layers\.0\..*, which GPT2LMHeadModel does not have"):
        edit.apply_(tiny("GPT2LMHeadModel"))


def test_apply_is_for_good_and_once(model: Model) -> None:
    edit = random_edit(model)
    with edit.applied(model):
        wanted = weights(model)
    assert edit.apply_(model) is model
    assert same(weights(model), wanted)
    with pytest.raises(UserError, match="is in place on .* already; apply it only once"):
        edit.apply_(model)


def test_a_second_edit_is_made_on_the_first(model: Model) -> None:
    first = random_edit(model)
    before = weights(model)
    with first.applied(model):
        second = random_edit(model, [Site(0, "neuron", 0)], seed=2)
        with second.applied(model):
            assert model.edits == {first: (), second: (first,)}
        assert list(model.edits) == [first]
    assert same(weights(model), before)
    with pytest.raises(UserError, match="made for weights"):
        second.apply_(model)


def test_summary_and_share(model: Model) -> None:
    for edit in (random_edit(model), low_rank(model)):
        before, summary = weights(model), edit.summary(model)
        squares = dict.fromkeys(range(3), 0.0)
        with edit.applied(model):
            for name, p in model.parameters.items():
                norm = float((p - before[name]).norm())
                assert summary.norms.get(name, 0.0) == pytest.approx(norm)
                if norm:
                    squares[int(next(part for part in name.split(".") if part.isdigit()))] += norm**2
        assert summary.layers == pytest.approx({i: s**0.5 for i, s in squares.items() if s})
        assert edit.share(model) == summary.share == edit.parameters / sum(p.numel() for p in before.values())
        assert 0 < summary.share < 0.2
        assert summary.nothing_else
        assert f"{edit.parameters:,} numbers" in str(summary)
        assert "everything else: unchanged" in str(summary)


def test_the_digest_of_the_rest_sees_every_other_number_and_none_of_its_own(model: Model) -> None:
    edit = random_edit(model)
    rest = untouched(edit, model)
    for name, p in model.parameters.items():
        own = torch.zeros_like(p, dtype=torch.bool)
        for where in edit.slices:
            if where.name == name:
                own.index_fill_(where.dim, where.index.to(model.device), True)
        for at, same_ in ((own, True), (~own, False)):
            if at.any():
                with scratch(model), torch.no_grad():
                    place = tuple(at.nonzero()[-1].tolist())
                    p[place] += 1e-9
                    assert (untouched(edit, model) == rest) == same_, name
    assert untouched(edit, model) == rest


def test_files_that_are_no_edit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no edit file"):
        Edit.load(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="a safetensors file but not a LOKA edit"):
        Edit.load(tmp_path / "other.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"\x80\x04junk, not a safetensors file")
    with pytest.raises(UserError, match="cannot be read"):
        Edit.load(tmp_path / "junk.safetensors")
    for head in (
        '{"format": "loka-edit-2"}',
        '{"format": "loka-edit-2", "slices": [[',
        '{"format": "loka-edit-2", "slices": [["w", 0]], "made_for": "", "record": {}}',
        '{"format": "loka-edit-2", "slices": 3, "made_for": "", "record": {}}',
        "[]",
    ):
        save_file({"a": torch.zeros(2)}, tmp_path / "half.safetensors", metadata={"loka": head})
        with pytest.raises(UserError, match=r"cannot be read|not a LOKA edit"):
            Edit.load(tmp_path / "half.safetensors")


@pytest.mark.parametrize(
    ("tensors", "head"),
    [
        ({"0.index": torch.tensor([0.0])}, {}),
        ({"0.index": torch.tensor([3, 3])}, {}),
        ({"0.values": torch.tensor([torch.nan])}, {}),
        ({"0.values": torch.tensor([1])}, {}),
        ({"1.values": torch.zeros(1)}, {}),
        ({}, {"slices": [["w", "x"]]}),
        ({}, {"made_for": 3}),
        ({}, {"record": {"strength": "x"}}),
        ({}, {"record": []}),
    ],
)
def test_a_garbled_edit_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], head: dict[str, object]) -> None:
    path = tmp_path / "garbled.safetensors"
    whole = {"format": "loka-edit-2", "slices": [["w", 0]], "made_for": "", "record": {}} | head
    save_file(
        {"0.index": torch.tensor([0]), "0.values": torch.zeros(1)} | tensors, path, metadata={"loka": json.dumps(whole)}
    )
    with pytest.raises(UserError, match=r"cannot be read|an edit's record"):
        Edit.load(path)


def test_an_edit_that_does_not_fit_is_refused_whole(tiny: Make) -> None:
    model = tiny("LlamaForCausalLM")
    good = random_edit(model)
    short = Edit(good.slices, (*good.values[:-1], good.values[-1][:1, :1]), good.made_for)
    far = Slice(good.slices[0].name, 0, torch.tensor([10_000]))
    before = weights(model)
    for bad in (short, Edit((*good.slices, far), (*good.values, torch.zeros(1, 32)), good.made_for)):
        with pytest.raises((LokaError, IndexError, RuntimeError)), bad.applied(model):
            pytest.fail("it was put in place")
        assert same(weights(model), before)
        assert not model.edits


def test_scratch_restores_every_bit_even_after_an_error(model: Model) -> None:
    before = weights(model)
    where = slices(model, SITES)
    with pytest.raises(RuntimeError, match="inside"), scratch(model), torch.no_grad():
        for p in model.parameters.values():
            p.normal_()
        raise RuntimeError("inside")
    assert same(weights(model), before)
    with pytest.raises(RuntimeError, match="inside"), scratch(model, where):
        for part in where:
            part.write_(model.parameters[part.name], torch.zeros_like(part.read(model.parameters[part.name])))
        assert not same(weights(model), before)
        raise RuntimeError("inside")
    assert same(weights(model), before)
