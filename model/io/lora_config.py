"""The configuration of a plain LoRA adapter: an allow-list of what `adapter_config.json` may say."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, StringConstraints, ValidationError

from ..._util.errors import UserError

T = TypeVar("T")
CONFIG = "adapter_config.json"
Nothing = (
    Literal[False] | Annotated[list[Any], Field(max_length=0)] | Annotated[dict[str, Any], Field(max_length=0)] | None
)
# peft reads a name as a regular expression; with these letters it means itself.
Name = Annotated[str, StringConstraints(pattern=r"^[\w.-]+$")]


class LoraConfig(BaseModel):
    """The fields of peft's `LoraConfig` with the values under which the adapter adds `B A alpha / r` and no more.

    Fields up to `use_rslora` set the numbers. Those up to `megatron_core` change nothing when an adapter is used. Those
    after it make other adapters, and must be off. What peft would fill in for lack of a field has changed between its
    versions, so `r`, `lora_alpha` and `target_modules` must be there.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    peft_type: Literal["LORA"]
    r: PositiveInt
    lora_alpha: FiniteFloat
    target_modules: Annotated[list[Name], Field(min_length=1)]
    rank_pattern: dict[Name, PositiveInt] | None = None
    alpha_pattern: dict[Name, FiniteFloat] | None = None
    use_rslora: bool = False

    base_model_name_or_path: str | None = None
    revision: Literal["main"] | None = None
    task_type: Literal["CAUSAL_LM"] | None = None
    auto_mapping: dict[str, Any] | None = None
    peft_version: str | None = None
    inference_mode: bool = True
    fan_in_fan_out: bool = False
    lora_dropout: FiniteFloat = 0.0
    # The other ways to begin (PiSSA, OLoRA, CorDA, LoftQ and more) change the model's own weights.
    init_lora_weights: Literal[True, False, "gaussian", "orthogonal"] = True
    qalora_group_size: int | None = None
    megatron_core: str | None = None

    bias: Literal["none"] = "none"
    alora_invocation_tokens: Nothing = None
    arrow_config: Nothing = None
    corda_config: Nothing = None
    ensure_weight_tying: Nothing = None
    eva_config: Nothing = None
    exclude_modules: Nothing = None
    kasa_config: Nothing = None
    layer_replication: Nothing = None
    layers_pattern: Nothing | Literal[""] = None
    layers_to_transform: Nothing = None
    loftq_config: Nothing = None
    lora_bias: Nothing = None
    lora_ga_config: Nothing = None
    megatron_config: Nothing = None
    modules_to_save: Nothing = None
    monteclora_config: Nothing = None
    runtime_config: Nothing = None
    target_parameters: Nothing = None
    trainable_token_indices: Nothing = None
    use_bdlora: Nothing = None
    use_dora: Nothing = None
    use_qalora: Nothing = None
    velora_config: Nothing = None

    def targets(self, module: str) -> bool:
        """Whether peft puts factors on the module of this name."""
        return any(f".{module}".endswith(f".{name}") for name in self.target_modules)

    def rank(self, module: str) -> int:
        """The rank of a module's factors."""
        return _own(self.rank_pattern, module, self.r)

    def scale(self, module: str) -> float:
        """The number that multiplies `B A`."""
        rank = self.rank(module)
        return _own(self.alpha_pattern, module, self.lora_alpha) / (math.sqrt(rank) if self.use_rslora else rank)


def read_lora_config(folder: Path) -> LoraConfig:
    """The configuration of an adapter, from its JSON file.

    Raises:
        UserError: the file cannot be read, lacks a field, or has one that is unknown or makes another kind of adapter.
    """
    try:
        return LoraConfig.model_validate_json((folder / CONFIG).read_bytes())
    except OSError as error:
        raise UserError(f"the adapter {str(folder)!r} has no {CONFIG} that can be read ({error.strerror}).") from error
    except ValidationError as error:
        raise UserError(f"the adapter {str(folder)!r} {_fault(error)}") from None


def names(key: str, module: str) -> bool:
    """Whether a key of a pattern names a module, as peft matches it: the key is the end of the module's name."""
    return re.match(rf"(.*\.)?({key})$", module) is not None


def _own(pattern: Mapping[str, T] | None, module: str, usual: T) -> T:
    """A module's own setting: the first whose key names the module."""
    return next((value for key, value in (pattern or {}).items() if names(key, module)), usual)


def _fault(error: ValidationError) -> str:
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    merge = "merge it into its model and give that folder"
    if not field:
        return f"has a {CONFIG} that is not the JSON of an adapter ({first['msg'].lower()}); save it again."
    if first["type"] == "missing":
        return f"has no {field!r} in its {CONFIG}, and its change is unknown without it; add what it was trained with."
    if first["type"] == "extra_forbidden":
        return f"has the field {field!r}, which LOKA does not know; remove it if it changes nothing, or {merge}."
    value = reprlib.repr(first["input"])
    if field == "target_modules":
        return f"has target_modules = {value}; list the names of its maps there, or {merge}."
    return f"has {field} = {value}, which is not plain LoRA; {merge}."
