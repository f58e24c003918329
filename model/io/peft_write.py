"""Write an edit as a low-rank adapter that peft reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..._util.errors import UserError
from ..._util.files import atomic
from ..anatomy import feature_dim, is_linear

if TYPE_CHECKING:
    from ..edit.edit import Edit
    from ..load import Model

RANK = 256


def export_adapter(model: Model, edit: Edit, folder: str | Path, *, rank: int = RANK) -> Path:
    """Write `adapter_config.json` and `adapter_model.safetensors`, a LoRA adapter for peft.

    A change to a few rows and columns of a matrix has low rank. Factors are written as they are, `k` rows or columns as
    a pair of rank `k`. The only loss is rounding when the adapter is loaded.

    Args:
        folder: a folder that does not exist or is empty.
        rank: the largest rank that is allowed for one matrix.

    Raises:
        UserError: the edit was made for other weights, changes a bias or anything else outside linear maps, needs a
            larger rank, or the folder is not empty.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{str(target)!r} is not empty; name a new folder for the adapter.")
    pairs = _pairs(model, edit)
    ranks = {name: left.shape[1] for name, (left, _) in pairs.items()}
    most = max(ranks, key=lambda name: ranks[name])
    if ranks[most] > rank:
        raise UserError(
            f"the edit changes {most} by rank {ranks[most]}, more than {rank}; export the whole model instead, edit "
            "fewer sites, or allow a larger rank."
        )
    tensors = {}
    for name, (left, right) in pairs.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = left.t().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = right.t().contiguous()
    with atomic(target) as whole:
        whole.mkdir()
        save_file(tensors, whole / "adapter_model.safetensors", metadata={"format": "pt"})
        text = json.dumps(_config(model, ranks), indent=2, sort_keys=True)
        (whole / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
    return target


def _pairs(model: Model, edit: Edit) -> dict[str, tuple[Tensor, Tensor]]:
    """By linear map, a pair `[d_in, rank]` and `[rank, d_out]` whose product moves the output as the edit does."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with edit.applied(model):
        after = {name: model.parameters[name].detach().cpu().double().clone() for name in edit.names}
    for name in edit.names:
        module, kind = name.rpartition(".")[::2]
        if kind != "weight" or not is_linear(model.hf.get_submodule(module)):
            raise UserError(
                f"the edit changes {name}, and a LoRA adapter cannot hold that; export the whole model instead."
            )
        factors = [(f.left.double(), f.right.double()) for f in edit.factors if f.name == name]
        rest = after[name] - model.parameters[name].detach().cpu().double() - sum(a @ b for a, b in factors)
        rows, columns = (
            sorted({i for s in edit.slices if (s.name, s.dim) == (name, dim) for i in s.index.tolist()})
            for dim in (0, 1)
        )
        pairs = [*factors, (_identity_columns(len(rest), rows), rest[rows])]
        rest[rows] = 0
        pairs.append((rest[:, columns], _identity_columns(rest.shape[1], columns).t()))
        straight = feature_dim(model.hf.get_submodule(module), out=True) == 1
        found[module] = pairs if straight else [(b.t(), a.t()) for a, b in pairs]
    dtype = torch.promote_types(model.dtype, torch.float32)
    return {
        name: (torch.cat([a for a, _ in pairs], 1).to(dtype), torch.cat([b for _, b in pairs]).to(dtype))
        for name, pairs in found.items()
    }


def _identity_columns(n: int, index: list[int]) -> Tensor:
    """Some columns of the identity, `[n, k]`."""
    return torch.eye(n, dtype=torch.float64)[:, index]


def _config(model: Model, ranks: dict[str, int]) -> dict[str, object]:
    """The configuration that peft reads. With alpha equal to the rank, it adds each product unscaled."""
    r = max(ranks.values())
    conv = any(type(model.hf.get_submodule(name)).__name__ == "Conv1D" for name in ranks)
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": model.name, "inference_mode": True,
        "r": r, "lora_alpha": r, "rank_pattern": ranks, "alpha_pattern": ranks, "target_modules": sorted(ranks),
        "fan_in_fan_out": conv, "bias": "none", "lora_dropout": 0.0, "init_lora_weights": True,
        "modules_to_save": None, "use_rslora": False, "use_dora": False,
    }  # fmt: skip
