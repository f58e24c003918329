"""The weights, and their rows and columns, that make up a site."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from .._util.errors import UserError
from .site import Part, Site

if TYPE_CHECKING:
    from .load import Model

# The names of a block's linear maps in transformers' architectures.
_ATTENTION = ("self_attn", "attn", "attention")
_MLP = ("mlp",)
_GATE_UP = (("gate_proj",), ("up_proj", "c_fc", "dense_h_to_4h", "fc_in", "fc1"))
_DOWN = ("down_proj", "c_proj", "dense_4h_to_h", "fc_out", "fc2")
_OUT = ("o_proj", "c_proj", "dense", "out_proj")


@dataclass(frozen=True)
class Slice:
    """Rows or columns of one parameter.

    `name`: the parameter, as in `hf.named_parameters()`; `dim`: the axis that is indexed;
    `index`: int64 `[k]`, sorted, without repeats.
    """

    name: str
    dim: int
    index: Tensor

    def read(self, parameter: Tensor) -> Tensor:
        """A copy of the values, shaped like the parameter but of length `k` on axis `dim`."""
        return parameter.detach().index_select(self.dim, self.index.to(parameter.device)).clone()

    def check(self, parameter: Tensor, values: Tensor) -> None:
        """Raise `UserError` unless the parameter has these rows or columns and the values fit them."""
        length = parameter.shape[self.dim] if self.dim < parameter.ndim else 0
        wanted = (*parameter.shape[: self.dim], len(self.index), *parameter.shape[self.dim + 1 :])
        inside = not len(self.index) or 0 <= int(self.index.min()) <= int(self.index.max()) < length
        if not inside or tuple(values.shape) != wanted:
            last = max(self.index.tolist(), default=0)
            raise UserError(
                f"the edit writes {tuple(values.shape)} numbers to {self.name} of shape {tuple(parameter.shape)}, up "
                f"to {last} on axis {self.dim}, and they do not fit; make the edit on this model."
            )

    @torch.no_grad()
    def write_(self, parameter: Tensor, values: Tensor) -> None:
        """Replace the values that `read` gives."""
        index = self.index.to(parameter.device)
        parameter.index_copy_(self.dim, index, values.to(parameter.device, parameter.dtype))


@dataclass(frozen=True)
class _Rows:
    """Output or input features of one linear map."""

    module: str
    index: list[int]


def slices(model: Model, sites: Iterable[Site], *, reads: bool = True, writes: bool = True) -> list[Slice]:
    """The weights that sites own, one `Slice` for each parameter and axis, in the model's order.

    A neuron owns its gate and up rows, with their biases, and its down column. A head owns its query rows and output
    columns, and also its key and value rows unless it shares them. A key/value group (`kv`) owns its key and value
    rows. `q`, `k` and `v` own only those rows; `attn` and `mlp` own all of theirs. `resid` owns no weights.

    Args:
        reads: include the weights that read the residual stream (rows).
        writes: include the weights that write to it (columns).

    Raises:
        UserError: a site that the model does not have, or one without weights.
    """
    picked: dict[tuple[str, int], set[int]] = defaultdict(set)
    for site in sites:
        model.check_site(site)
        block = model.block(site.layer)
        rows, columns = _neuron(model, block, site) if site.part in ("neuron", "mlp") else _head(model, block, site)
        if reads:
            for row in rows:
                _pick(model, picked, row, out=True)
        if writes and columns:
            _pick(model, picked, columns, out=False)
    order = {name: i for i, name in enumerate(model.parameters)}
    keys = sorted(picked, key=lambda key: (order[key[0]], key[1]))
    return [Slice(name, dim, torch.tensor(sorted(picked[name, dim]))) for name, dim in keys]


@dataclass(frozen=True)
class Tap:
    """Where a part of a layer can be read and changed in a run: features of a module's input or output.

    `out`: whether they are features of the output. `index`: int64 `[unit, width]`, the features of each unit.
    """

    module: nn.Module
    out: bool
    index: Tensor


def taps(model: Model, part: Part, layer: int) -> list[Tap]:
    """The taps of a part: two for a key/value group, whose keys and values leave two maps, else one.

    Heads and neurons are tapped where their output map reads them, queries, keys and values where their maps return
    them, before norms and rotation.
    """
    if part in ("head", "neuron"):
        module = head_output(model, layer) if part == "head" else neuron_output(model, layer)
        width = model.d_head if part == "head" else 1
        return [Tap(module, False, _features(model.units(part), width))]
    if part in ("resid", "attn", "mlp"):
        whole = {"attn": attention, "mlp": mlp}.get(part)
        module = whole(model, layer) if whole else model.hf.get_submodule(model.block(layer))
        return [Tap(module, True, torch.arange(model.d_model)[None])]
    name = _find(model, model.block(layer), _ATTENTION)
    found = [_projection(model, name, kind) for kind in part]
    return [Tap(model.hf.get_submodule(module), True, index) for module, index in found]


def attention(model: Model, layer: int) -> nn.Module:
    """A layer's attention, with its output map."""
    return model.hf.get_submodule(_find(model, model.block(layer), _ATTENTION))


def mlp(model: Model, layer: int) -> nn.Module:
    """A layer's MLP."""
    return model.hf.get_submodule(_find(model, model.block(layer), _MLP))


def neuron_output(model: Model, layer: int) -> nn.Module:
    """The map whose input is the neurons' activations `[batch, position, neuron]`."""
    return model.hf.get_submodule(neuron_output_name(model, layer))


def neuron_output_name(model: Model, layer: int) -> str:
    """The name of `neuron_output`, such as `model.layers.3.mlp.down_proj`."""
    return _find(model, _find(model, model.block(layer), _MLP), _DOWN)


def head_output(model: Model, layer: int) -> nn.Module:
    """The map whose input is the heads' outputs `[batch, position, head * d_head]`."""
    return model.hf.get_submodule(head_output_name(model, layer))


def head_output_name(model: Model, layer: int) -> str:
    """The name of `head_output`, such as `model.layers.3.self_attn.o_proj`."""
    return _find(model, _find(model, model.block(layer), _ATTENTION), _OUT)


def _neuron(model: Model, block: str, site: Site) -> tuple[list[_Rows], _Rows]:
    mlp = _find(model, block, _MLP)
    index = list(range(model.n_neurons)) if site.index is None else [site.index]
    down = _Rows(_find(model, mlp, _DOWN), index)
    fused = _maybe(model, mlp, ("gate_up_proj",))
    if fused:
        return [_Rows(fused, index + [i + model.n_neurons for i in index])], down
    maps = [found for names in _GATE_UP if (found := _maybe(model, mlp, names))]
    return [_Rows(m, index) for m in maps], down


def _head(model: Model, block: str, site: Site) -> tuple[list[_Rows], _Rows | None]:
    if site.part == "resid":
        raise UserError(f"{site} is a state and owns no weights; name neurons, heads, kv, attn or mlp instead.")
    name = _find(model, block, _ATTENTION)
    kinds = {"attn": "qkv", "head": "q" if model.n_kv_heads < model.n_heads else "qkv"}.get(site.part, site.part)
    unit = slice(None) if site.index is None else [site.index]
    found = [_projection(model, name, kind) for kind in kinds]
    rows = [_Rows(module, index[unit].flatten().tolist()) for module, index in found]
    if site.part not in ("head", "attn"):
        return rows, None
    columns = _features(model.n_heads, model.d_head)
    return rows, _Rows(_find(model, name, _OUT), columns[unit].flatten().tolist())


def _projection(model: Model, attention: str, kind: str) -> tuple[str, Tensor]:
    """The map that computes queries, keys or values, fused or not, and its features `[unit, d_head]`."""
    d, units = model.d_head, model.units(kind)
    index = _features(units, d)
    if fused := _maybe(model, attention, ("qkv_proj", "c_attn")):
        n_q, n_kv = model.n_heads * d, model.n_kv_heads * d
        return fused, index + {"q": 0, "k": n_q, "v": n_q + n_kv}[kind]
    if fused := _maybe(model, attention, ("query_key_value",)):  # NeoX: q, k, v of a head side by side
        return fused, index + 2 * d * torch.arange(units)[:, None] + "qkv".index(kind) * d
    return _find(model, attention, (f"{kind}_proj",)), index


def _features(units: int, width: int) -> Tensor:
    """The features of units that lie side by side, `[unit, width]`."""
    return rearrange(torch.arange(units * width), "(unit width) -> unit width", unit=units)


def _pick(model: Model, picked: dict[tuple[str, int], set[int]], rows: _Rows, *, out: bool) -> None:
    if not rows.index:
        return
    module = model.hf.get_submodule(rows.module)
    picked[f"{rows.module}.weight", feature_dim(module, out=out)].update(rows.index)
    if out and getattr(module, "bias", None) is not None:
        picked[f"{rows.module}.bias", 0].update(rows.index)


def feature_dim(module: nn.Module, *, out: bool) -> int:
    """The axis of `module.weight` with the output (or input) features. GPT-2's maps are transposed."""
    transposed = type(module).__name__ == "Conv1D"
    return int(out == transposed)


def _maybe(model: Model, parent: str, names: tuple[str, ...]) -> str | None:
    owner = model.hf.get_submodule(parent)
    return next((f"{parent}.{name}" for name in names if isinstance(getattr(owner, name, None), nn.Module)), None)


def _find(model: Model, parent: str, names: tuple[str, ...]) -> str:
    found = _maybe(model, parent, names)
    if found is None:
        children = [name for name, _ in model.hf.get_submodule(parent).named_children()]
        raise UserError(
            f"{model.name} has none of {', '.join(names)} in {parent} (it has {', '.join(children)}); "
            "LOKA addresses dense decoder blocks such as Llama's, GPT-2's, NeoX's, Gemma's or Phi-3's."
        )
    return found
