"""The anatomy of a block: the names of its maps, their sizes, and the order of features in maps that are fused.

Names are transformers'. Sizes are read off the weights, because configurations name them in many ways. The order of a
fused map is found by what its features do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor, nn

from .._util.errors import UserError
from .experts import is_open

_ATTENTION = ("self_attn", "self_attention", "attn.attention", "attn", "attention")
_MLP = ("mlp",)
_GATE_UP = (("gate_proj",), ("up_proj", "c_fc", "dense_h_to_4h", "fc_in", "fc1"))
_FUSED_GATE_UP = ("gate_up_proj",)
_DOWN = ("down_proj", "c_proj", "dense_4h_to_h", "fc_out", "fc2")
_OUT = ("o_proj", "c_proj", "dense", "out_proj")
_FUSED = ("qkv_proj", "c_attn", "query_key_value")
Order = Callable[[int, int, int], dict[str, Tensor]]


def _blocked(heads: int, groups: int, width: int) -> dict[str, Tensor]:
    """All queries, then all keys, then all values: GPT-2, Phi-3."""
    all_features = _side_by_side(heads + 2 * groups, width)
    return dict(zip("qkv", all_features.split([heads, groups, groups]), strict=True))


def _grouped(heads: int, groups: int, width: int) -> dict[str, Tensor]:
    """Group by group: its queries, its key, its value. GPT-NeoX, BLOOM, Falcon."""
    size = heads // groups
    by_group = rearrange(_side_by_side(heads + 2 * groups, width), "(group one) width -> group one width", group=groups)
    queries, key, value = by_group.split([size, 1, 1], 1)
    return {"q": queries.flatten(0, 1), "k": key.flatten(0, 1), "v": value.flatten(0, 1)}


def _quarters(heads: int, groups: int, width: int) -> dict[str, Tensor]:
    """Four parts, each with the queries, values and keys of a quarter of the heads: CodeGen."""
    if heads % 4 or groups != heads:
        return {}
    parts = rearrange(
        _side_by_side(3 * heads, width), "(part kind head) width -> kind (part head) width", part=4, kind=3
    )
    return {"q": parts[0], "v": parts[1], "k": parts[2]}


def _side_by_side(units: int, width: int) -> Tensor:
    return rearrange(torch.arange(units * width), "(unit width) -> unit width", unit=units)


ORDERS: dict[str, Order] = {"blocked": _blocked, "grouped": _grouped, "quarters": _quarters}


@dataclass(frozen=True)
class Anatomy:
    """The maps of a block, by their names below it, and their sizes.

    Attributes:
        attention: the module of the attention.
        out: its output map, which reads the heads.
        qkv: the maps that compute queries, keys and values; three times the same if they are fused.
        mlp: the module whose output is that of the MLP: the MLP itself, or its last map if it has no module of its own.
        down: the module that the neurons pass: the map that reads them, or, in opened experts, `neurons`; empty if they
            have no addresses.
        experts: the module of the experts, if they are open.
        n_experts: how many there are; 1 for a dense MLP.
        n_neurons: the neurons of a layer, of all its experts.
        reads: the maps that compute the neurons from the stream.
        fused_reads: whether one map computes gates and, after them, what they gate.
        order: the order of features in a fused map, a key of `ORDERS`; empty if the maps are separate.
    """

    attention: str
    out: str
    qkv: tuple[str, str, str]
    mlp: str
    down: str
    reads: tuple[str, ...]
    fused_reads: bool
    n_heads: int
    n_kv_heads: int
    n_neurons: int
    d_head: int
    order: str = ""
    experts: str = ""
    n_experts: int = 1

    @property
    def writer(self) -> str:
        """The module whose output is what the MLP writes, without a stream that the MLP itself may add to it."""
        return self.mlp if self.experts or not self.down else self.down

    def features(self, kind: str) -> Tensor:
        """The output features of each unit's queries, keys or values in their map, `[unit, d_head]`."""
        if self.order:
            return ORDERS[self.order](self.n_heads, self.n_kv_heads, self.d_head)[kind]
        return _side_by_side(self.n_heads if kind == "q" else self.n_kv_heads, self.d_head)

    def orders(self) -> Sequence[Anatomy]:
        """This anatomy with each order that its fused map may have; itself if it has none."""
        if len(set(self.qkv)) > 1:
            return [self]
        fit = [name for name, order in ORDERS.items() if order(self.n_heads, self.n_kv_heads, self.d_head)]
        return [replace(self, order=name) for name in fit]


def dissect(block: nn.Module, n_heads: int, name: str) -> Anatomy:
    """Find the maps of a block of a model called `name`. The order of a fused map is not yet known.

    Raises:
        UserError: a map is missing, or has a size that no number of heads explains.
    """
    attention = _find(block, "", _ATTENTION, name)
    out = _find(block, attention, _OUT, name)
    fused = _maybe(block, attention, _FUSED)
    q, k, v = (fused or _find(block, attention, (f"{kind}_proj",), name) for kind in "qkv")
    qkv = (q, k, v)
    heads_width = feature_count(block.get_submodule(out), out=False)
    d_head, rest = divmod(heads_width, n_heads)
    keys = feature_count(block.get_submodule(qkv[1]), out=True)
    groups, odd = divmod(keys - heads_width, 2 * max(d_head, 1)) if fused else divmod(keys, max(d_head, 1))
    queries = heads_width if fused else feature_count(block.get_submodule(qkv[0]), out=True)
    if rest or odd or groups < 1 or n_heads % groups or queries != heads_width:
        raise UserError(
            f"{name}: {n_heads} heads do not explain maps of {queries} features for queries, {keys} for keys and "
            f"{heads_width} for the heads' outputs; LOKA addresses heads whose queries, keys and values have one width."
        )
    mlp = _maybe(block, "", _MLP) or ""
    return replace(_mlp(block, mlp, name), attention=attention, out=out, qkv=qkv, n_heads=n_heads, n_kv_heads=groups,
                   d_head=d_head)  # fmt: skip


def _mlp(block: nn.Module, mlp: str, name: str) -> Anatomy:
    """The part of the anatomy that is the MLP's."""
    blank = Anatomy("", "", ("", "", ""), mlp, "", (), False, 0, 0, 0, 0)
    inside = dict(block.get_submodule(mlp).named_children()) if mlp else {}
    opened = next((child for child, module in inside.items() if is_open(module)), None)
    routed = [child for child, m in inside.items() if isinstance(m, nn.ModuleList) or "xperts" in type(m).__name__]
    if opened and len(routed) == 1 and not any("shared" in child for child in inside):
        n, width = (block.get_submodule(f"{mlp}.{opened}").get_parameter("down_proj").shape[i] for i in (0, 2))
        path = f"{mlp}.{opened}"
        return replace(blank, down=f"{path}.neurons", experts=path, n_experts=n, n_neurons=n * width)
    if routed:
        return blank
    down = _find(block, mlp, _DOWN, name)
    fused = _maybe(block, mlp, _FUSED_GATE_UP)
    maps = tuple(found for names in _GATE_UP if (found := _maybe(block, mlp, names)))
    n = feature_count(block.get_submodule(down), out=False)
    return replace(
        blank, mlp=mlp or down, down=down, reads=(fused,) if fused else maps, fused_reads=bool(fused), n_neurons=n
    )


def feature_dim(module: nn.Module, *, out: bool) -> int:
    """The axis of `module.weight` with the output (or input) features. GPT-2's maps are transposed."""
    transposed = type(module).__name__ == "Conv1D"
    return int(out == transposed)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def feature_count(module: nn.Module, *, out: bool) -> int:
    """The number of output (or input) features of a linear map."""
    return module.get_parameter("weight").shape[feature_dim(module, out=out)]


def _maybe(block: nn.Module, parent: str, names: Sequence[str]) -> str | None:
    """The first of these modules below a parent that the block has, by its name below the block."""
    there = {name for name, _ in block.named_modules()}
    paths = (f"{parent}.{name}" if parent else name for name in names)
    return next((path for path in paths if path in there), None)


def _find(block: nn.Module, parent: str, names: Sequence[str], name: str) -> str:
    found = _maybe(block, parent, names)
    if found is None:
        children = [child for child, _ in block.get_submodule(parent).named_children()]
        raise UserError(
            f"{name} has none of {', '.join(names)} in {parent or 'its blocks'} (it has {', '.join(children)}); "
            "LOKA addresses decoder blocks such as Llama's, GPT-2's, NeoX's, Gemma's or Phi-3's."
        )
    return found
