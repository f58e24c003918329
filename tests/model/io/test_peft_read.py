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
    tensors, names = {}, [neuron_output_name(model, 1), head_output_name(model, 2)]
    fixed = {**CONFIG, "target_modules": names, "rank_pattern": {names[1].split(".", 1)[1]: 2}}
    generator = torch.Generator().manual_seed(0)
    for rank, name in zip((3, 2), names, strict=True):
        module = model.hf.get_submodule(name)
        rows, columns = module.weight.shape[::-1] if type(module).__name__ == "Conv1D" else module.weight.shape
        for side, shape in (("A", (rank, columns)), ("B", (rows, rank))):
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = torch.randn(shape, generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**fixed, **changes}))
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


# One value for each field of peft's configuration under which the adapter is not plain LoRA.
OTHERS: dict[str, object] = {
    "peft_type": "IA3", "task_type": "SEQ_CLS", "revision": "v2", "bias": "lora_only", "use_dora": True,
    "init_lora_weights": "pissa", "layer_replication": [[0, 2], [1, 3]], "alora_invocation_tokens": [5, 6],
    "use_qalora": True, "lora_bias": True, "target_parameters": ["mlp.weight"], "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1], "loftq_config": {"bits": 4}, "eva_config": {"rho": 2}, "corda_config": {"a": 1},
    "lora_ga_config": {"a": 1}, "arrow_config": {"top_k": 1}, "kasa_config": {"a": 1}, "velora_config": {"a": 1},
    "monteclora_config": {"a": 1}, "use_bdlora": {"a": 1}, "ensure_weight_tying": True, "megatron_config": {"a": 1},
    "layers_to_transform": [1], "layers_pattern": "layers", "exclude_modules": ["o_proj"], "runtime_config": {"a": 1},
    "target_modules": "all-linear", "r": "3", "lora_alpha": float("nan"), "alpha_pattern": {".*": 2.0},
    "use_rslora": "yes", "of_tomorrow": None,
}  # fmt: skip


@pytest.mark.parametrize("field", OTHERS)
def test_a_field_that_makes_another_adapter_is_refused_by_name(field: str, tiny: Make, tmp_path: Path) -> None:
    model = tiny("LlamaForCausalLM")
    with pytest.raises(UserError, match=field) as refusal:
        read_adapter(model, written(model, tmp_path / "adapter", **{field: OTHERS[field]}))
    assert "\n" not in str(refusal.value)


def test_what_peft_writes_beside_the_numbers_is_accepted(tiny: Make, tmp_path: Path) -> None:
    """Every field that a plain adapter of peft 0.18 has, at its default."""
    model = tiny("LlamaForCausalLM")
    off = {
        "alora_invocation_tokens": None, "arrow_config": None, "auto_mapping": None, "corda_config": None,
        "ensure_weight_tying": False, "eva_config": None, "exclude_modules": None, "fan_in_fan_out": False,
        "inference_mode": True, "init_lora_weights": True, "layer_replication": None, "layers_pattern": None,
        "layers_to_transform": None, "loftq_config": {}, "lora_bias": False, "lora_dropout": 0.05,
        "megatron_config": None, "megatron_core": "megatron.core", "modules_to_save": None, "peft_version": "0.18.0",
        "qalora_group_size": 16, "revision": None, "target_parameters": None, "task_type": "CAUSAL_LM",
        "trainable_token_indices": None, "use_dora": False, "use_qalora": False, "use_rslora": False,
    }  # fmt: skip
    plain, full = (read_adapter(model, written(model, tmp_path / n, **c)) for n, c in (("plain", {}), ("full", off)))
    assert plain.digest() == full.digest()


@pytest.mark.parametrize("field", ["r", "lora_alpha", "target_modules"])
def test_a_configuration_without_what_sets_the_numbers_is_refused(field: str, tiny: Make, tmp_path: Path) -> None:
    model = tiny("LlamaForCausalLM")
    config = written(model, tmp_path / "adapter") / "adapter_config.json"
    fields = json.loads(config.read_text())
    del fields[field]
    config.write_text(json.dumps(fields))
    with pytest.raises(UserError, match=f"has no '{field}' in its adapter_config.json"):
        read_adapter(model, config.parent)


def test_a_configuration_that_does_not_describe_the_tensors_is_refused(tiny: Make, tmp_path: Path) -> None:
    model = tiny("LlamaForCausalLM")
    down, out = neuron_output_name(model, 1), head_output_name(model, 2)
    faults: dict[str, dict[str, object]] = {
        "was trained on 'org/another', not on": {"base_model_name_or_path": "org/another"},
        "'nowhere' in its alpha_pattern": {"alpha_pattern": {"nowhere": 2}},
        "name no map .*o_proj": {"target_modules": [down]},
        "has no factors for model.layers.0.mlp.down_proj": {"target_modules": ["down_proj", out]},
        "says rank 3": {"rank_pattern": {}},
    }
    for i, (words, changes) in enumerate(faults.items()):
        with pytest.raises(UserError, match=words):
            read_adapter(model, written(model, tmp_path / str(i), **changes))
    for i, text in enumerate(["{", "[1]", "", "[" * 100_000, '{"r": 1' + " " * 5]):
        folder = written(model, tmp_path / f"text {i}")
        (folder / "adapter_config.json").write_text(text)
        with pytest.raises(UserError, match="is not the JSON of an adapter"):
            read_adapter(model, folder)


def test_tensors_that_are_no_factors_are_refused(tiny: Make, tmp_path: Path) -> None:
    model = tiny("LlamaForCausalLM")
    name = neuron_output_name(model, 1)
    a, b = f"base_model.model.{name}.lora_A.weight", f"base_model.model.{name}.lora_B.weight"
    right, embedded = {a: torch.ones(3, 48), b: torch.ones(32, 3)}, "base_model.model.model.embed_tokens"
    faults: dict[str, dict[str, torch.Tensor]] = {
        "that are not finite numbers": {**right, a: torch.full((3, 48), float("inf"))},
        "has one factor only": {a: right[a]},
        "says rank 3": {**right, b: torch.ones(32)},
        "changes .*lora_magnitude_vector": {**right, f"base_model.model.{name}.lora_magnitude_vector": torch.ones(32)},
        "embed_tokens is not a linear map": {
            f"{embedded}.lora_A.weight": torch.ones(3, 32), f"{embedded}.lora_B.weight": torch.ones(88, 3)
        },
    }  # fmt: skip
    for i, (words, tensors) in enumerate(faults.items()):
        targets = sorted({key.removeprefix("base_model.model.").split(".lora_")[0] for key in tensors})
        folder = written(model, tmp_path / str(i), target_modules=targets, rank_pattern=None)
        save_file(tensors, folder / "adapter_model.safetensors")
        with pytest.raises(UserError, match=words):
            read_adapter(model, folder)


def test_adapters_for_other_models_are_refused(tiny: Make, tmp_path: Path) -> None:
    model, other, neox = tiny("LlamaForCausalLM"), tiny("Gemma2ForCausalLM"), tiny("GPTNeoXForCausalLM")
    named = written(model, tmp_path / "named", base_model_name_or_path="org/LlamaForCausalLM")
    assert read_adapter(model, named).factors
    with pytest.raises(UserError, match="its change to .* has the shape .* the matrix"):
        read_adapter(other, written(model, tmp_path / "shapes"))
    with pytest.raises(UserError, match="does not fit GPTNeoXForCausalLM: its target_modules name no map"):
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
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, "r": 2, "target_modules": [name]}))
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
