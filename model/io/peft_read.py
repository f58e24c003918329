"""Read a low-rank adapter of another tool as an edit. Hu et al. 2021, arXiv:2106.09685."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..._util.errors import UserError
from ..edit.edit import Edit
from ..edit.factors import Factors, factors
from ..edit.record import EditRecord
from .lora_config import CONFIG, LoraConfig, names, read_lora_config

if TYPE_CHECKING:
    from ..load import Model

WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter and not a model."""
    return (Path(folder) / CONFIG).is_file() and not (Path(folder) / "config.json").exists()


def read_adapter(model: Model, folder: str | Path) -> Edit:
    """The edit that adds `B A alpha / r` to each matrix of an adapter in the layout of the package peft.

    It is read as data: JSON and safetensors only. The configuration must say nothing that `LoraConfig` does not list,
    and the tensors must be those that the configuration names.

    Args:
        model: the model that the adapter was trained on.
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        UserError: pickled weights, an adapter other than plain LoRA, or an adapter for another model.
    """
    path = Path(folder)
    tensors, config = _tensors(path), read_lora_config(path)
    _refuse_others(model, path, config)
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = KEY.fullmatch(name)
        if found is None:
            raise UserError(f"the adapter {str(path)!r} changes {name}; LOKA reads plain LoRA on linear maps.")
        sides.setdefault(found["module"], {})[found["side"]] = tensor
    _check_targets(model, path, config, set(sides))
    changes = tuple(_factors(model, path, config, module, pair) for module, pair in sides.items())
    return Edit((), (), model.digest(), EditRecord("adapter", model.name, sites=(), adapter=path.name), changes)


def _tensors(path: Path) -> dict[str, Tensor]:
    if not (path / WEIGHTS).is_file():
        why = (
            "has pickled weights only, and reading them can run code"
            if (path / PICKLED).exists()
            else f"has no {WEIGHTS}"
        )
        raise UserError(f"the adapter {str(path)!r} {why}; save it again as safetensors.")
    try:
        return load_file(path / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"the adapter {str(path)!r} cannot be read ({error}); save it again.") from error


def _check_targets(model: Model, path: Path, config: LoraConfig, found: set[str]) -> None:
    """Refuse tensors that peft would ignore, and maps that it would fill with random ones."""
    named = {name for name, _ in model.hf.named_modules() if config.targets(name)}
    if faults := sorted(found - named):
        raise UserError(
            f"the adapter {str(path)!r} does not fit {model.name}: its target_modules name no map {faults[0]}, but it "
            "holds factors for it; give the model that it was trained on, or correct target_modules."
        )
    if faults := sorted(named - found):
        raise UserError(
            f"the adapter {str(path)!r} has no factors for {faults[0]}, which its target_modules name; save it again."
        )
    for field, pattern in {"rank_pattern": config.rank_pattern, "alpha_pattern": config.alpha_pattern}.items():
        if unknown := [key for key in pattern or {} if not any(names(key, module) for module in found)]:
            raise UserError(
                f"the adapter {str(path)!r} has {unknown[0]!r} in its {field}, which is not one of its maps; remove it "
                "if it changes nothing."
            )


def _refuse_others(model: Model, path: Path, config: LoraConfig) -> None:
    """Refuse an adapter whose base has another name than the model."""
    base = config.base_model_name_or_path or ""
    known = {str(model.name), str(getattr(model.hf.config, "_name_or_path", "") or "")}
    if base and _last(base) not in {_last(name) for name in known}:
        raise UserError(
            f"the adapter {str(path)!r} was trained on {base!r}, not on {model.name!r}; give that model as --before, "
            f"or fix base_model_name_or_path in its {CONFIG} if the two are the same."
        )


def _last(name: str) -> str:
    return name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1].casefold()


def _factors(model: Model, path: Path, config: LoraConfig, module: str, sides: dict[str, Tensor]) -> Factors:
    _check_pair(model, path, config, module, sides)
    change = factors(model, module, sides["A"].t(), config.scale(module) * sides["B"].double().t())
    shape = tuple(model.parameters[change.name].shape)
    if change.shape != shape:
        raise UserError(
            f"the adapter {str(path)!r} does not fit {model.name}: its change to {module} has the shape "
            f"{change.shape}, the matrix {shape}; give the model that it was trained on."
        )
    return change


def _check_pair(model: Model, path: Path, config: LoraConfig, module: str, sides: dict[str, Tensor]) -> None:
    """Refuse factors that are not a finite pair of the configured rank on a linear map with weights of its own."""
    linear = type(model.hf.get_submodule(module)).__name__ in ("Linear", "Conv1D")
    if set(sides) != {"A", "B"} or not linear or f"{module}.weight" not in model.parameters:
        raise UserError(
            f"the adapter {str(path)!r} does not fit {model.name}: {module} is not a linear map with weights of its "
            "own, or has one factor only; merge the adapter into its model and give that folder."
        )
    if any(side.dtype not in TYPES or not side.isfinite().all() for side in sides.values()):
        raise UserError(
            f"the adapter {str(path)!r} holds factors of {module} that are not finite numbers in float32, float16 or "
            "bfloat16; save it again."
        )
    ranks, wanted = (tuple(sides["A"].shape)[:1], tuple(sides["B"].shape)[1:]), (config.rank(module),)
    if ranks != (wanted, wanted) or sides["A"].ndim != 2:
        raise UserError(
            f"the adapter {str(path)!r} has factors of {module} of the shapes {tuple(sides['A'].shape)} and "
            f"{tuple(sides['B'].shape)}, but its {CONFIG} says rank {wanted[0]}; correct r or rank_pattern."
        )
