"""Edits go on one another and beside one another, come off in any safe order, and several become one."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from loka._util.errors import UserError
from loka.model import Edit, EditRecord, Factors, Model, Site, Slice, encode, logits, merge, slices
from loka.model.edit.applied import Applied
from loka.model.layout import head_output_name, neuron_output_name

Make = Callable[[str], Model]
PARTS = ("neuron", "head", "kv", "mlp", "attn")


@pytest.fixture(params=["LlamaForCausalLM", "GPT2LMHeadModel", "Phi3ForCausalLM"])
def model(tiny: Make, request: pytest.FixtureRequest) -> Model:
    return tiny(request.param)


def some(model: Model, sites: list[Site], seed: int = 0) -> Edit:
    """Random new values for the sites' weights, for the weights as they are now."""
    generator = torch.Generator().manual_seed(seed)
    where = slices(model, sites)
    values = [torch.randn(s.read(model.parameters[s.name]).shape, generator=generator).double() for s in where]
    return Edit(tuple(where), tuple(values), model.digest(), EditRecord("random", arguments={"seed": seed}))


def turned(model: Model, layer: int, seed: int = 0) -> Edit:
    """A random change of rank two to what a layer's MLP and attention write."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for name in (neuron_output_name(model, layer), head_output_name(model, layer)):
        rows, columns = model.parameters[f"{name}.weight"].shape
        left, right = (torch.randn(shape, generator=generator).double() for shape in ((rows, 2), (2, columns)))
        parts.append(Factors(f"{name}.weight", left, right))
    return Edit((), (), model.digest(), EditRecord("turned"), tuple(parts))


def weights(model: Model) -> dict[str, Tensor]:
    return {name: p.clone() for name, p in model.parameters.items()}


def drawn(model: Model, rng: random.Random) -> Edit:
    """An edit of one of all kinds, made for the weights as they are now."""
    seed = rng.randrange(10**6)
    if rng.random() < 0.2:
        return turned(model, rng.randrange(3), seed)
    parts = [rng.choice(PARTS) for _ in range(rng.randint(1, 3))]
    sites = [(rng.randrange(3), p) for p in parts]
    whole = ("mlp", "attn")
    return some(model, [Site(la, p, None if p in whole else rng.randrange(model.units(p))) for la, p in sites], seed)


def test_a_thousand_random_compositions_come_off_clean(tiny: Make) -> None:
    """Edits are drawn, put on and taken off at random; what the contexts allow must leave what it should."""
    model, rng = tiny("LlamaForCausalLM"), random.Random(0)
    before, digest = weights(model), model.digest()
    spare = [drawn(model, rng) for _ in range(12)]  # made for the bare weights, to be put beside others
    on: list[Applied] = []
    done, refused_on, refused_off, out_of_order = 0, 0, 0, 0
    while done < 1000 or on:
        if on and (done >= 1000 or rng.random() < 0.5 or len(on) > 6):
            context = rng.choice(on)
            stands = [e for e, under in model.edits.items() if context.edit in under]
            earlier = weights(model)
            if stands:
                with pytest.raises(UserError, match="were made on this one; take those off first"):
                    context.__exit__(None, None, None)
                assert all(torch.equal(p, earlier[n]) for n, p in model.parameters.items())
                refused_off += 1
                continue
            out_of_order += context is not on[-1]
            context.__exit__(None, None, None)
            on.remove(context)
        else:
            edit = rng.choice(spare) if rng.random() < 0.6 else drawn(model, rng)
            context, earlier = edit.applied(model), weights(model)
            try:
                context.__enter__()
            except UserError:
                assert all(torch.equal(p, earlier[n]) for n, p in model.parameters.items())
                refused_on += 1
                continue
            on.append(context)
            done += 1
        for context in on:  # nothing covers what another holds, but for edits that were made on it
            above = [e for e, under in model.edits.items() if context.edit in under]
            if not above:
                for where, values in zip(context.edit.slices, context.edit.values, strict=True):
                    assert torch.equal(where.read(model.parameters[where.name]).cpu(), values)
        if not on:
            assert model.digest() == digest
    assert all(torch.equal(p, before[n]) for n, p in model.parameters.items())
    assert not model.edits
    assert min(refused_on, refused_off, out_of_order) > 50, (refused_on, refused_off, out_of_order)


def test_edits_that_share_nothing_go_on_and_come_off_in_any_order(model: Model) -> None:
    before, edits = weights(model), [some(model, [Site(i, "neuron", i), Site(i, "head", 1)], i) for i in range(3)]
    digests = set()
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        contexts = {i: edits[i].applied(model) for i in order}
        for context in contexts.values():
            context.__enter__()
        digests.add(model.digest())
        for i in sorted(contexts):
            contexts[i].__exit__(None, None, None)
        assert all(torch.equal(p, before[n]) for n, p in model.parameters.items())
    assert len(digests) == 1


def test_edits_that_share_weights_are_refused_unless_one_was_made_on_the_other(tiny: Make) -> None:
    model = tiny("LlamaForCausalLM")
    name = "model.layers.0.mlp.up_proj.weight"
    row = Edit((Slice(name, 0, torch.tensor([3])),), (torch.ones(1, 32).double(),), model.digest())
    column = Edit((Slice(name, 1, torch.tensor([5])),), (torch.zeros(48, 1).double(),), model.digest())
    other = Edit((Slice(name, 0, torch.tensor([4])),), (torch.zeros(1, 32).double(),), model.digest())
    whole = Edit((), (), model.digest(), EditRecord(), (Factors(name, torch.ones(48, 1), torch.ones(1, 32)),))
    assert row.meets(column) == column.meets(row) == row.meets(whole) == whole.meets(whole) == [name]
    assert row.meets(other) == []
    with row.applied(model):
        for edit in (column, whole):
            with pytest.raises(UserError, match="both change model.layers.0.mlp.up_proj.weight, and neither was made"):
                edit.applied(model).__enter__()
        with other.applied(model):
            pass
        same = Edit(row.slices, row.values, row.made_for)
        for again in (row, same):
            with pytest.raises(UserError, match="in place on LlamaForCausalLM already; apply it only once"):
                again.applied(model).__enter__()
        on_it = Edit(column.slices, column.values, model.digest())
        with on_it.applied(model):
            assert model.edits == {row: (), on_it: (row,)}
        with pytest.raises(UserError, match="made on edits that LlamaForCausalLM has only within a context"):
            on_it.apply_(model)


def stack(model: Model) -> tuple[Edit, Edit]:
    """An edit, and another one of the same weights that was made on it."""
    first = some(model, [Site(0, "neuron", 3), Site(1, "attn")])
    with first.applied(model):
        return first, replace(some(model, [Site(0, "neuron", 3)], 1), factors=turned(model, 1).factors)


def test_an_edit_that_is_left_under_another_one_can_still_come_off(model: Model) -> None:
    before, (first, second) = weights(model), stack(model)
    above = second.applied(model)
    refusal = pytest.raises(UserError, match=r"made on this one; take those off first, or .* model\.restore\(\)")
    with refusal, first.applied(model):
        above.__enter__()
    assert list(model.edits) == [first, second]
    assert model.restore() is model
    assert all(torch.equal(p, before[n]) for n, p in model.parameters.items())
    assert not model.edits
    assert not model.originals
    above.__exit__(None, None, None)  # the other context may still be left
    assert all(torch.equal(p, before[n]) for n, p in model.parameters.items())
    with first.applied(model), second.applied(model):  # and both may be put in place again
        assert list(model.edits) == [first, second]
    assert all(torch.equal(p, before[n]) for n, p in model.parameters.items())


def test_an_error_of_the_user_is_not_hidden_by_an_edit_that_must_stay(model: Model) -> None:
    before, (first, second) = weights(model), stack(model)
    with pytest.raises(ZeroDivisionError) as found, first.applied(model):
        second.applied(model).__enter__()
        _ = 1 / 0
    assert "take those off first" in found.value.__notes__[0]
    model.restore()
    assert all(torch.equal(p, before[n]) for n, p in model.parameters.items())


def test_a_context_from_before_a_restore_leaves_the_same_edit_of_a_later_one_alone(model: Model) -> None:
    edit = some(model, [Site(0, "neuron", 3)])
    with edit.applied(model):
        model.restore()
        later = edit.applied(model)
        later.__enter__()
        inside = weights(model)
    assert all(torch.equal(p, inside[n]) for n, p in model.parameters.items())
    later.__exit__(None, None, None)
    assert not model.edits


def test_an_interrupted_removal_is_finished_by_restore(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    before, (first, second) = weights(model), stack(model)
    written, write = [], Slice.write_

    def interrupted(self: Slice, parameter: Tensor, values: Tensor) -> None:
        write(self, parameter, values)
        written.append(self)
        if len(written) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), first.applied(model), second.applied(model):
        monkeypatch.setattr(Slice, "write_", interrupted)
    monkeypatch.undo()
    model.restore()
    assert all(torch.equal(p, before[n]) for n, p in model.parameters.items())


@pytest.mark.parametrize("kind", ["apart", "crossing", "one on the other", "of low rank", "one"])
def test_a_merged_edit_does_what_its_parts_do_bit_for_bit(model: Model, kind: str, tmp_path: Path) -> None:
    before = weights(model)
    first = some(model, [Site(0, "neuron", 3), Site(1, "head", 2)])
    if kind == "apart":
        edits = [first, some(model, [Site(0, "neuron", 4), Site(2, "kv", 1)], 1)]
    elif kind == "of low rank":
        with first.applied(model):
            edits = [first, turned(model, 1)]
    elif kind == "one":
        edits = [first]
    else:
        with first.applied(model):
            sites = [Site(0, "neuron", 3), Site(0, "neuron", 9), Site(1, "attn")]
            edits = [first, some(model, sites if kind == "crossing" else [Site(2, "mlp")], 1)]
    with edits[0].applied(model):
        if len(edits) > 1:
            with edits[1].applied(model):
                wanted = weights(model)
        else:
            wanted = weights(model)
    merged = merge(model, edits)
    assert all(torch.equal(p, before[n]) for n, p in model.parameters.items())
    again = Edit.load(merged.save(tmp_path / "merged.safetensors"))
    assert again.digest() == merged.digest()
    assert again.made_for == first.made_for
    assert again.record.edits == tuple(edit.record for edit in edits)
    with again.applied(model):
        assert all(torch.equal(p, wanted[n]) for n, p in model.parameters.items())
    assert merged.summary(model).nothing_else
    assert merged.parameters <= sum(e.parameters for e in edits) or kind == "of low rank"


def test_what_cannot_be_merged_is_refused(model: Model) -> None:
    first, second = some(model, [Site(0, "neuron", 3)]), some(model, [Site(0, "neuron", 3)], 1)
    for edits, words in (
        ([], "nothing to merge"),
        ([first, second], "neither was made on the other"),
        ([first, first], "apply it only once"),
    ):
        with pytest.raises(UserError, match=words):
            merge(model, edits)
        assert not model.edits
    with first.applied(model):
        chained = some(model, [Site(0, "neuron", 3)], 1)
    with pytest.raises(UserError, match="made for weights"):
        merge(model, [chained, first])
    earlier = logits(model, encode(model, ["the capital of a dog is"], ["warm bread"]))
    with merge(model, [first, chained]).applied(model) as edited:
        assert not torch.equal(logits(edited, encode(model, ["the capital of a dog is"], ["warm bread"])), earlier)
