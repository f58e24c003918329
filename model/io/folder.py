"""A model folder, checked before it is loaded: a model is what its files say, wholly.

transformers draws a missing weight at random, leaves one it does not know aside, follows an index to files elsewhere,
and takes memory for any size that a configuration names. Here each of these is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from ..._util.errors import UserError, first_line
from .gguf_read import check_gguf

INDEX = "model.safetensors.index.json"
GENERATION = "generation_config.json"
_PICKLED = {".bin", ".pt", ".pth", ".ckpt"}
_HEADS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # the ends of the names of models that predict text
_PLAIN = ("F64", "F32", "F16", "BF16")
_TYPES = {
    "weight": _PLAIN,
    "bias": (*_PLAIN, "BOOL", "U8"),
}  # of tensors by the end of their names; a mask may be a bias
_SHOWN = 3


def check_folder(folder: Path) -> dict[str, str]:
    """Check the files of a model folder and give the arguments that load it. Cost: headers are read, weights are not.

    Raises:
        UserError: pickled, quantized, missing or damaged weights, weights that are whole numbers, an index that leaves
            the folder, an adapter, a model with another head, sizes that the weights do not bear out, or a generation
            configuration that is not JSON, which transformers would ignore.
    """
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"the folder {str(folder)!r} has an adapter (adapter_config.json), which names its model itself; give the "
            "model's folder, and the adapter as an edit."
        )
    found = {p.suffix for p in folder.iterdir()}
    files = _weight_files(folder) if ".safetensors" in found else []
    if not files and ".gguf" in found:
        return {"gguf_file": _only_gguf(folder)}
    if not files:
        raise _no_weights(folder, found)
    config = _config(folder)
    if (folder / GENERATION).exists():
        _json(folder / GENERATION)
    _check_sizes(folder, config, _shapes(files))
    return {}


def check_loading(name: str, info: Mapping[str, Any]) -> None:
    """Raise `UserError` unless the files held every tensor of the model, in its shape, and nothing else.

    `info`: what transformers reports with `output_loading_info`.
    """
    for key, what in {
        "missing_keys": "lack {} of its tensors ({}), which would be drawn at random",
        "unexpected_keys": "have {} tensors that it does not use ({})",
        "mismatched_keys": "have {} tensors of another shape ({})",
        "error_msgs": "could not be read in {} places ({})",
    }.items():
        if wrong := sorted(str(k[0] if isinstance(k, tuple) else k) for k in info.get(key) or ()):
            raise UserError(
                f"the files of the model {name!r} {what.format(len(wrong), _some(wrong))}; "
                "give the whole folder, as save_pretrained of transformers wrote it."
            )


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads: one of the usual name, or those of the index."""
    if (one := folder / "model.safetensors").is_file():
        return [one]
    index = folder / INDEX
    if not index.is_file():
        raise UserError(
            f"the folder {str(folder)!r} has neither model.safetensors nor {INDEX}; name its weights like that, "
            "or save them again with save_pretrained."
        )
    weights = _json(index).get("weight_map")
    names = sorted({str(v) for v in weights.values()}) if isinstance(weights, dict) else []
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or not (folder / name).is_file():
            raise UserError(
                f"{str(index)!r} names {name[:100]!r}; it may name *.safetensors files in its own folder alone. "
                "Restore the missing file, or convert pickled weights in an environment that you trust."
            )
    if not names:
        raise UserError(f"{str(index)!r} has no table 'weight_map'; save the model again with save_pretrained.")
    return [folder / name for name in names]


def _only_gguf(folder: Path) -> str:
    names = sorted(p.name for p in folder.glob("*.gguf"))
    if len(names) > 1:
        raise UserError(f"the folder {str(folder)!r} has {len(names)} GGUF files ({_some(names)}); leave one of them.")
    check_gguf(folder / names[0])
    return names[0]


def _no_weights(folder: Path, found: Collection[str]) -> UserError:
    if _PICKLED & set(found):
        return UserError(
            f"the folder {str(folder)!r} has pickled weights only, and reading them can run code; convert them to "
            "safetensors (`save_pretrained` in an environment that you trust) and load those."
        )
    return UserError(f"the folder {str(folder)!r} has no *.safetensors or *.gguf; give a model folder.")


def _config(folder: Path) -> PretrainedConfig:
    said = _json(folder / "config.json")
    named = said.get("architectures") or []
    if isinstance(named, list) and named and not any(str(n).endswith(_HEADS) for n in named):
        raise UserError(
            f"the folder {str(folder)!r} holds {named[0]}, which does not predict text; give a causal language model."
        )
    if "quantization_config" in said:
        raise UserError(
            f"the folder {str(folder)!r} has quantized weights, which cannot be edited; give the model in full "
            "precision, or a GGUF file, which is dequantized."
        )
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever transformers finds wrong with the file
        raise UserError(
            f"{str(folder / 'config.json')!r} does not describe a model that transformers knows ({first_line(error)}); "
            "give the config.json that came with the weights."
        ) from error


def _shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118
                found |= {key: tuple(part.get_shape()) for key, part in slices.items()}
                types = {key: part.get_dtype() for key, part in slices.items()}
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{str(file)!r} is not a whole safetensors file ({error}); fetch it again.") from error
        if wrong := [key for key, of in types.items() if of not in _TYPES.get(key.rpartition(".")[2], (of,))]:
            raise UserError(
                f"{str(file)!r} holds {wrong[0]} as {types[wrong[0]]}, which is not a plain weight; give the model in "
                "float32, float16 or bfloat16."
            )
    return found


def _check_sizes(folder: Path, config: PretrainedConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a configuration of a larger model than the files hold, before memory is taken for it."""
    layers = getattr(config, "num_hidden_layers", 0)
    stored, wanted = sum(math.prod(shape) for shape in shapes.values()), 0
    if not isinstance(layers, int) or not 0 <= layers <= len(shapes):
        raise UserError(
            f"{str(folder / 'config.json')!r} names {layers} layers, and the weights have {len(shapes)} tensors "
            "in all; give the config.json that came with them."
        )
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        model.tie_weights()
        wanted = sum(p.numel() for p in model.parameters())
    except Exception as error:
        raise UserError(
            f"no causal model can be made of {str(folder / 'config.json')!r} ({first_line(error)}); "
            "give a folder of a causal language model, with the config.json that came with the weights."
        ) from error
    if wanted > stored:
        raise UserError(
            f"{str(folder / 'config.json')!r} describes a model of {wanted:,} weights, and its files hold {stored:,}; "
            "give the whole folder, as save_pretrained of transformers wrote it."
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} cannot be read as JSON ({error}); give a whole model folder.") from error
    if not isinstance(found, dict):
        raise UserError(f"{str(path)!r} holds a {type(found).__name__}, not an object; give a whole model folder.")
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
