"""An edit that is written as an adapter, applied by the rules of peft's format."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from loka._util.errors import UserError
from loka.model import Edit, Model, Site, encode, export_adapter, factors, logits, slices
from loka.model.layout import head_output_name, neuron_output_name

Make = Callable[[str], Model]


def said(model: Model) -> Tensor:
    with torch.no_grad():
        return logits(model, encode(model, ["the capital of a dog is"], ["warm bread"]))


def some(model: Model, sites: list[Site]) -> Edit:
    generator = torch.Generator().manual_seed(0)
    where = slices(model, sites)
    values = [torch.randn(s.read(model.parameters[s.name]).shape, generator=generator).double() for s in where]
    return Edit(tuple(where), tuple(values), model.digest())


def turned(model: Model, layer: int) -> Edit:
    generator = torch.Generator().manual_seed(1)
    width = model.n_heads * model.d_head
    shapes = {neuron_output_name(model, layer): model.n_neurons, head_output_name(model, layer): width}
    parts = []
    for name, d_in in shapes.items():
        for rank in (2, 1):  # two changes to one matrix
            pair = (torch.randn(s, generator=generator).double() for s in ((d_in, rank), (rank, model.d_model)))
            parts.append(factors(model, name, *pair))
    return Edit((), (), model.digest(), {}, tuple(parts))


def as_peft_reads(model: Model, folder: Path) -> None:
    """Add `B @ A * alpha / r` to each target's weight in place, transposed where the weight is stored so."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    assert config["peft_type"] == "LORA"
    names = {key.split(".lora_")[0].removeprefix("base_model.model.") for key in tensors}
    assert names == set(config["target_modules"])
    for name in names:
        a, b = (tensors[f"base_model.model.{name}.lora_{kind}.weight"] for kind in "AB")
        rank = config["rank_pattern"].get(name, config["r"])
        assert a.shape[0] == b.shape[1] == rank
        delta = b @ a * config["alpha_pattern"].get(name, config["lora_alpha"]) / rank
        weight = model.parameters[f"{name}.weight"]
        with torch.no_grad():
            delta = delta.to(model.device)
            weight.add_(delta.t() if config["fan_in_fan_out"] else delta)


@pytest.mark.parametrize("kind", ["slices", "factors", "both"])
def test_the_adapter_does_what_the_edit_does(architecture: str, kind: str, tiny: Make, tmp_path: Path) -> None:
    model = tiny(architecture)
    biased = any(name.endswith(".bias") for name in model.parameters if ".mlp." in name or ".fc2." in name)
    neurons = [Site(0, "neuron", 3), Site(0, "neuron", 40), Site(1, "neuron", 3)]
    edits = {"slices": some(model, neurons), "factors": turned(model, 1)}
    slices_of = [(s, v) for s, v in zip(edits["slices"].slices, edits["slices"].values, strict=True)]
    slices_of = [(s, v) for s, v in slices_of if not s.name.endswith(".bias")]
    where, values = zip(*slices_of, strict=True)
    edits["slices"] = Edit(where, values, model.digest())
    edits["both"] = Edit(where, values, model.digest(), {}, edits["factors"].factors)
    before = said(model)
    with edits[kind].applied(model):
        wanted = said(model)
    assert torch.equal(said(model), before)
    as_peft_reads(model, export_adapter(model, edits[kind], tmp_path / "adapter"))
    assert torch.allclose(said(model), wanted, atol=1e-6)
    assert not torch.allclose(said(model), before, atol=1e-2)
    assert biased == (architecture.startswith(("GPT", "OPT", "Bloom", "Phi")) and not architecture.startswith("Phi3"))


def test_edits_that_an_adapter_cannot_hold_are_refused(tiny: Make, tmp_path: Path) -> None:
    model, biased = tiny("LlamaForCausalLM"), tiny("GPT2LMHeadModel")
    with pytest.raises(UserError, match="by rank 48, more than 8; export the whole model instead"):
        export_adapter(model, some(model, [Site(0, "mlp")]), tmp_path / "a", rank=8)
    with pytest.raises(UserError, match=r"c_fc\.bias, and a LoRA adapter cannot hold that"):
        export_adapter(biased, some(biased, [Site(0, "neuron", 1)]), tmp_path / "b")
    with pytest.raises(UserError, match="made for weights"):
        head = some(model, [Site(0, "head", 1)])
        export_adapter(model, Edit(head.slices, head.values, "x"), tmp_path / "c")
    assert not list(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty; name a new folder for the adapter"):
        export_adapter(model, turned(model, 0), tmp_path / "full")
