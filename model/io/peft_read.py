"""Read a low-rank adapter of another tool as an edit. Hu et al. 2021, arXiv:2106.09685."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..._util.errors import UserError
from ..edit.edit import Edit
from ..edit.factors import Factors, factors
from ..edit.record import EditRecord

if TYPE_CHECKING:
    from ..load import Model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
REFUSED = {"use_dora": "DoRA", "modules_to_save": "whole modules", "trainable_token_indices": "token embeddings"}


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter and not a model."""
    return (Path(folder) / CONFIG).is_file() and not (Path(folder) / "config.json").exists()


def read_adapter(model: Model, folder: str | Path) -> Edit:
    """The edit that adds `B A alpha / r` to each matrix of an adapter in the layout of the package peft.

    It is read as data: JSON and safetensors only.

    Args:
        model: the model that the adapter was trained on.
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        UserError: pickled weights, an adapter other than plain LoRA, or an adapter for another model.
    """
    path = Path(folder)
    config, tensors = _read(path)
    _refuse_kinds(path, config, tensors)
    _refuse_others(model, path, config)
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = KEY.fullmatch(name)
        if found is None:
            raise UserError(f"the adapter {str(path)!r} changes {name}; LOKA reads plain LoRA on linear maps.")
        sides.setdefault(found["module"], {})[found["side"]] = tensor
    unknown = [key for key in config.get("alpha_pattern") or {} if not any(f".{m}".endswith(f".{key}") for m in sides)]
    if unknown:
        raise UserError(
            f"the adapter {str(path)!r} scales {unknown[0]!r}, which is not one of its maps; merge it into its "
            "model, and give that folder."
        )
    changes = tuple(_factors(model, path, config, module, pair) for module, pair in sides.items())
    return Edit((), (), model.digest(), EditRecord("adapter", model.name, sites=(), adapter=path.name), changes)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not (path / WEIGHTS).is_file():
        why = (
            "has pickled weights only, and reading them can run code"
            if (path / PICKLED).exists()
            else f"has no {WEIGHTS}"
        )
        raise UserError(f"the adapter {str(path)!r} {why}; save it again as safetensors.")
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        return config, load_file(path / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"the adapter {str(path)!r} cannot be read ({error}); save it again.") from error


def _refuse_kinds(path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    kind = config.get("peft_type")
    extra = [what for key, what in REFUSED.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        extra.append("biases")
    if kind != "LORA" or extra or not tensors:
        what = f"is of the kind {kind!r}" if kind != "LORA" else f"changes {' and '.join(extra) or 'nothing'}"
        raise UserError(
            f"the adapter {str(path)!r} {what}; LOKA reads plain LoRA. Merge it into its model and give that folder."
        )


def _refuse_others(model: Model, path: Path, config: dict[str, Any]) -> None:
    """Refuse an adapter whose base has another name than the model."""
    base = str(config.get("base_model_name_or_path") or "")
    names = {str(model.name), str(getattr(model.hf.config, "_name_or_path", "") or "")}
    if base and _last(base) not in {_last(name) for name in names}:
        raise UserError(
            f"the adapter {str(path)!r} was trained on {base!r}, not on {model.name!r}; give that model as --before, "
            f"or fix base_model_name_or_path in its {CONFIG} if the two are the same."
        )


def _last(name: str) -> str:
    return name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1].casefold()


def _factors(model: Model, path: Path, config: dict[str, Any], module: str, sides: dict[str, Tensor]) -> Factors:
    if set(sides) != {"A", "B"} or f"{module}.weight" not in model.parameters:
        raise UserError(f"the adapter {str(path)!r} does not fit {model.name}: {module} is not one of its linear maps.")
    down, up = sides["A"], sides["B"]
    rank = down.shape[0]
    alpha = _setting(config, "alpha_pattern", module, config.get("lora_alpha", rank))
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    change = factors(model, module, down.t(), scale * up.double().t())
    shape = tuple(model.parameters[change.name].shape)
    if change.shape != shape:
        raise UserError(
            f"the adapter {str(path)!r} does not fit {model.name}: its change to {module} has the shape "
            f"{change.shape}, the matrix {shape}; give the model that it was trained on."
        )
    return change


def _setting(config: dict[str, Any], pattern: str, module: str, usual: float) -> float:
    """A module's own setting, or the default. The keys of a pattern are the ends of modules' names."""
    found = [value for key, value in (config.get(pattern) or {}).items() if f".{module}".endswith(f".{key}")]
    return found[0] if found else usual
