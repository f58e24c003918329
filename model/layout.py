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
from .anatomy import Anatomy, feature_dim
from .site import Part, Site

if TYPE_CHECKING:
    from .load import Model


@dataclass(frozen=True)
class Slice:
    """Rows or columns of one parameter.

    `name`: the parameter, as in `hf.named_parameters()`; `dim`: the axis that is indexed;
    `index`: int64 `[k]`, sorted, without repeats. The maps of experts `[expert, row, column]` count as one matrix: for
    rows they stand below each other, for columns side by side.
    """

    name: str
    dim: int
    index: Tensor

    def read(self, parameter: Tensor) -> Tensor:
        """A copy of the values, shaped like the parameter but of length `k` on axis `dim`."""
        return _matrix(parameter.detach(), self.dim).index_select(self.dim, self.index.to(parameter.device)).clone()

    def check(self, parameter: Tensor, values: Tensor) -> None:
        """Raise `UserError` unless the parameter has these rows or columns and the values fit them."""
        shape = _matrix(parameter.detach().to("meta"), self.dim).shape
        length = shape[self.dim] if self.dim < len(shape) else 0
        wanted = (*shape[: self.dim], len(self.index), *shape[self.dim + 1 :])
        inside = not len(self.index) or 0 <= int(self.index.min()) <= int(self.index.max()) < length
        if not inside or tuple(values.shape) != wanted:
            last = f", up to {int(self.index.max())}" if len(self.index) else ""
            raise UserError(
                f"the edit writes {tuple(values.shape)} numbers to {self.name} of shape {tuple(parameter.shape)}{last} "
                f"on axis {self.dim}, and they do not fit; make the edit on this model."
            )

    @torch.no_grad()
    def write_(self, parameter: Tensor, values: Tensor) -> None:
        """Replace the values that `read` gives."""
        index, values = self.index.to(parameter.device), values.to(parameter.device, parameter.dtype)
        if parameter.ndim == 3 and self.dim == 1:
            parameter[index // parameter.shape[2], :, index % parameter.shape[2]] = values.t()
        else:
            _matrix(parameter, self.dim).index_copy_(self.dim, index, values)

    def put(self, parameter: Tensor, values: Tensor) -> Tensor:
        """A copy of the parameter with these values, through which gradients reach them."""
        out = parameter.clone()
        index = self.index.to(parameter.device)
        if parameter.ndim == 3 and self.dim == 1:
            out[index // parameter.shape[2], :, index % parameter.shape[2]] = values.t().to(out)
            return out
        return _matrix(out, self.dim).index_copy(self.dim, index, values.to(out)).view(parameter.shape)


def _matrix(parameter: Tensor, dim: int) -> Tensor:
    """A parameter as slices see it: the maps of experts `[expert, row, column]` side by side along their axis.

    Rows (`dim` 0) are a view.
    """
    if parameter.ndim < 3:
        return parameter
    return parameter.flatten(0, 1) if dim == 0 else parameter.transpose(0, 1).flatten(1)


@dataclass(frozen=True)
class _Rows:
    """Output or input features of one linear map, or of the maps of experts, which are named by their parameter."""

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
    them, before norms and rotation. Attention and MLP are tapped where they write.
    """
    if part in ("head", "neuron"):
        module = head_output(model, layer) if part == "head" else neuron_output(model, layer)
        width = model.d_head if part == "head" else 1
        return [Tap(module, False, _features(model.units(part), width))]
    if part in ("resid", "attn", "mlp"):
        whole = {"attn": model.anatomy.out, "mlp": model.anatomy.writer}.get(part)
        return [Tap(_module(model, layer, whole), True, torch.arange(model.d_model)[None])]
    anatomy = model.anatomy
    return [Tap(_module(model, layer, anatomy.qkv["qkv".index(kind)]), True, anatomy.features(kind)) for kind in part]


def attention(model: Model, layer: int) -> nn.Module:
    """A layer's attention, with its output map."""
    return _module(model, layer, model.anatomy.attention)


def mlp(model: Model, layer: int) -> nn.Module:
    """A layer's MLP; its last map where the block has no module for the whole."""
    return _module(model, layer, model.anatomy.mlp)


def neuron_output(model: Model, layer: int) -> nn.Module:
    """The module whose input is the neurons' activations `[batch, position, neuron]`: a map, unless it has experts."""
    return _module(model, layer, _addressed(model).down)


def neuron_output_name(model: Model, layer: int) -> str:
    """The name of the map that reads the neurons, such as `model.layers.3.mlp.down_proj`.

    Raises:
        UserError: a mixture of experts, which has no one such map.
    """
    if model.anatomy.experts:
        raise UserError(
            f"{model.name} is a mixture of experts: a fact's MLP is not one map there, and a closed form has none to "
            "write to; use a trained method or `zero` on neurons."
        )
    return f"{model.block(layer)}.{_addressed(model).down}"


def output_columns(model: Model, part: Part, layer: int, units: list[int]) -> Tensor:
    """What each of these heads' features, or neurons, adds to its output map's output, `[..., d_model]`."""
    tap = taps(model, part, layer)[0]
    index = tap.index[units]
    if part == "neuron" and model.anatomy.experts:
        weight = _module(model, layer, model.anatomy.experts).get_parameter("down_proj")
        index = index.to(weight.device)
        return weight[index // weight.shape[2], :, index % weight.shape[2]]
    weight = tap.module.get_parameter("weight")
    return (weight if feature_dim(tap.module, out=True) else weight.t())[index.to(weight.device)]


def head_output(model: Model, layer: int) -> nn.Module:
    """The map whose input is the heads' outputs `[batch, position, head * d_head]`."""
    return model.hf.get_submodule(head_output_name(model, layer))


def head_output_name(model: Model, layer: int) -> str:
    """The name of `head_output`, such as `model.layers.3.self_attn.o_proj`."""
    return f"{model.block(layer)}.{model.anatomy.out}"


def _addressed(model: Model) -> Anatomy:
    """The anatomy of a model whose neurons have addresses."""
    if not model.anatomy.down:
        raise UserError(
            f"{model.name} has experts whose neurons LOKA cannot address (they have biases, or an expert that all "
            "tokens share); name heads, kv, q, k, v or attn instead."
        )
    return model.anatomy


def _module(model: Model, layer: int, name: str | None) -> nn.Module:
    """A module of a layer by its name below the block; the block itself for `None`."""
    return model.hf.get_submodule(f"{model.block(layer)}.{name}" if name else model.block(layer))


def _neuron(model: Model, block: str, site: Site) -> tuple[list[_Rows], _Rows]:
    anatomy = _addressed(model)
    index = list(range(model.n_neurons)) if site.index is None else [model.unit(site)]
    if anatomy.experts:
        width, path = anatomy.n_neurons // anatomy.n_experts, f"{block}.{anatomy.experts}"
        gates = [i // width * 2 * width + i % width for i in index]
        return [_Rows(f"{path}.gate_up_proj", gates + [i + width for i in gates])], _Rows(f"{path}.down_proj", index)
    reads = index + [i + model.n_neurons for i in index] if anatomy.fused_reads else index
    return [_Rows(f"{block}.{m}", reads) for m in anatomy.reads], _Rows(f"{block}.{anatomy.down}", index)


def _head(model: Model, block: str, site: Site) -> tuple[list[_Rows], _Rows | None]:
    if site.part == "resid":
        raise UserError(f"{site} is a state and owns no weights; name neurons, heads, kv, attn or mlp instead.")
    anatomy = model.anatomy
    kinds = {"attn": "qkv", "head": "q" if model.n_kv_heads < model.n_heads else "qkv"}.get(site.part, site.part)
    unit = slice(None) if site.index is None else [site.index]
    rows = [
        _Rows(f"{block}.{anatomy.qkv['qkv'.index(kind)]}", anatomy.features(kind)[unit].flatten().tolist())
        for kind in kinds
    ]
    if site.part not in ("head", "attn"):
        return rows, None
    columns = _features(model.n_heads, model.d_head)
    return rows, _Rows(f"{block}.{anatomy.out}", columns[unit].flatten().tolist())


def _features(units: int, width: int) -> Tensor:
    """The features of units that lie side by side, `[unit, width]`."""
    return rearrange(torch.arange(units * width), "(unit width) -> unit width", unit=units)


def _pick(model: Model, picked: dict[tuple[str, int], set[int]], rows: _Rows, *, out: bool) -> None:
    if not rows.index:
        return
    if rows.module in model.parameters:  # a map of experts
        picked[rows.module, int(not out)].update(rows.index)
        return
    module = model.hf.get_submodule(rows.module)
    picked[f"{rows.module}.weight", feature_dim(module, out=out)].update(rows.index)
    if out and getattr(module, "bias", None) is not None:
        picked[f"{rows.module}.bias", 0].update(rows.index)
