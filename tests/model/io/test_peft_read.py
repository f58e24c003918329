"""An edit that is read from an adapter in peft's layout changes the logits as the adapter does."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loka import audit
from loka._util.errors import UserError
from loka.knowledge import Case
from loka.model import Edit, Model, encode, is_adapter, logits, low_rank, read_adapter
from loka.model.layout import head_output_name, neuron_output_name

Make = Callable[[str], Model]
CONFIG = {"peft_type": "LORA", "r": 3, "lora_alpha": 6.0, "bias": "none", "base_model_name_or_path": ""}


def batch(model: Model):
    return encode(model, ["the capital of a dog is", "the old man likes the garden"], ["warm bread", "a dog"])


def written(model: Model, folder: Path, **changes: object) -> Path:
    """An adapter on an MLP's and an attention's output map, of ranks 3 and 2."""
    folder.mkdir(parents=True)
    tensors = {}
    generator = torch.Generator().manual_seed(0)
    for rank, name in ((3, neuron_output_name(model, 1)), (2, head_output_name(model, 2))):
        module = model.hf.get_submodule(name)
        rows, columns = module.weight.shape[::-1] if type(module).__name__ == "Conv1D" else module.weight.shape
        for side, shape in (("A", (rank, columns)), ("B", (rows, rank))):
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = torch.randn(shape, generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder


def by_hand(model: Model, folder: Path, scale: dict[int, float]) -> torch.Tensor:
    """Logits with `B A x` times the scale of its rank added to each map's output."""
    from safetensors.torch import load_file

    tensors, hooks = load_file(folder / "adapter_model.safetensors"), []
    for key in [k for k in tensors if k.endswith("lora_A.weight")]:
        down, up = (tensors[k].to(model.device, model.dtype) for k in (key, key.replace("lora_A", "lora_B")))
        module = model.hf.get_submodule(key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))

        def added(_m, inputs, out, down=down, up=up):
            return out + scale[len(down)] * (inputs[0] @ down.T) @ up.T

        hooks.append(module.register_forward_hook(added))
    try:
        return logits(model, batch(model))
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "GPT2LMHeadModel", "Phi3ForCausalLM", "GPTNeoXForCausalLM"])
@pytest.mark.parametrize(
    ("changes", "scale"),
    [({}, {3: 2.0, 2: 3.0}), ({"use_rslora": True}, {3: 6 / 3**0.5, 2: 6 / 2**0.5}), ({"alpha": 1}, {3: 2.0, 2: 0.5})],
    ids=["plain", "rank-stabilised", "own alpha"],
)
def test_the_edit_changes_the_logits_as_the_adapter_does(
    kind: str, changes: dict[str, object], scale: dict[int, float], tiny: Make, tmp_path: Path
) -> None:
    model = tiny(kind)
    if "alpha" in changes:
        changes = {"alpha_pattern": {head_output_name(model, 2).split(".", 1)[1]: 1.0}}
    folder = written(model, tmp_path / "adapter", **changes)
    assert is_adapter(folder)
    before, wanted = logits(model, batch(model)), by_hand(model, folder, scale)
    edit = read_adapter(model, folder)
    with edit.applied(model):
        torch.testing.assert_close(logits(model, batch(model)), wanted, atol=1e-9, rtol=1e-9)
    assert torch.equal(logits(model, batch(model)), before)
    assert (wanted - before).abs().max() > 1e-2


def test_other_adapters_are_refused(tiny: Make, tmp_path: Path) -> None:
    model, other = tiny("LlamaForCausalLM"), tiny("Gemma2ForCausalLM")
    neox = tiny("GPTNeoXForCausalLM")
    faults = {
        "was trained on 'org/another', not on": {"base_model_name_or_path": "org/another"},
        "changes DoRA; LOKA reads plain LoRA": {"use_dora": True},
        "changes biases": {"bias": "all"},
        "is of the kind 'IA3'": {"peft_type": "IA3"},
        "scales 'nowhere'": {"alpha_pattern": {"nowhere": 2}},
    }
    for i, (words, changes) in enumerate(faults.items()):
        with pytest.raises(UserError, match=words):
            read_adapter(model, written(model, tmp_path / str(i), **changes))
    named = written(model, tmp_path / "named", base_model_name_or_path="org/LlamaForCausalLM")
    assert read_adapter(model, named).factors
    with pytest.raises(UserError, match="its change to .* has the shape .* the matrix"):
        read_adapter(other, written(model, tmp_path / "shapes"))
    with pytest.raises(UserError, match="is not one of its linear maps"):
        read_adapter(neox, tmp_path / "shapes")
    (tmp_path / "shapes" / "adapter_model.safetensors").unlink()
    (tmp_path / "shapes" / "adapter_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match="pickled weights only"):
        read_adapter(model, tmp_path / "shapes")


def test_an_audit_takes_an_adapter(planted: Model, planted_case: Case, tmp_path: Path) -> None:
    """An adapter that changes nothing leaves everything intact."""
    name = neuron_output_name(planted, 1)
    rows, columns = planted.parameters[f"{name}.weight"].shape
    folder = tmp_path / "none"
    folder.mkdir()
    save_file(
        {f"base_model.model.{name}.lora_A.weight": torch.ones(2, columns),
         f"base_model.model.{name}.lora_B.weight": torch.zeros(rows, 2)},
        folder / "adapter_model.safetensors",
    )  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    verdict = audit(planted, str(folder), planted_case)
    assert verdict.recoveries["recall"].r == 1
    assert verdict.summary.edited_parameters == rows * columns


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "GPT2LMHeadModel", "GPTNeoXForCausalLM"])
def test_trained_factors_are_a_change_to_the_matrices(kind: str, tiny: Make) -> None:
    model = tiny(kind)
    before = logits(model, batch(model))
    with low_rank(model, rank=2, seed=1) as adapters:
        assert torch.equal(logits(model, batch(model)), before), "the factors must change nothing at first"
        with torch.enable_grad():
            logits(model, batch(model)).square().mean().backward()
        assert all(up.grad is not None and up.grad.abs().max() > 0 for up in adapters.up.values())
        assert all(p.grad is None for p in model.parameters.values())
        with torch.no_grad():
            for up in adapters.up.values():
                up += 0.1
        trained, made = logits(model, batch(model)).detach(), adapters.factors()
    assert torch.equal(logits(model, batch(model)), before), "the factors must be gone after the context"
    with Edit((), (), model.digest(), {}, made).applied(model):
        torch.testing.assert_close(logits(model, batch(model)), trained, atol=1e-8, rtol=1e-8)
