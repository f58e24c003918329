"""What changes in a model, kept apart from the model."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from ..errors import UserError
from ..files import write_atomic
from .factors import Factors
from .layout import Slice

if TYPE_CHECKING:
    from .load import Model

FORMAT = "loka-edit-1"


@dataclass(frozen=True, eq=False)
class Edit:
    """New values for some rows and columns of a model's weights, and low-rank changes to whole matrices.

    `slices[i]` says where, `values[i]` what: shaped like the parameter, but as long as the slice's
    index on its axis. `factors` are added to their matrices before the slices are written. `made_for` is
    the digest of the weights that it was made for; other weights are refused. `about` tells how it was
    made (method, sites, seed, steps).
    """

    slices: tuple[Slice, ...]
    values: tuple[Tensor, ...]
    made_for: str
    about: dict[str, Any] = field(default_factory=dict)
    factors: tuple[Factors, ...] = ()

    @property
    def parameters(self) -> int:
        """How many numbers it replaces: one in a row and a column counts once, factors count their whole matrix."""
        whole = {f.name: math.prod(f.shape) for f in self.factors}
        return sum((whole | {n: _cells(g) for n, g in self._by_name().items() if n not in whole}).values())

    def digest(self) -> str:
        """SHA-256 over where and what it changes."""
        total = hashlib.sha256(self.made_for.encode())
        for where, values in zip(self.slices, self.values, strict=True):
            total.update(f"{where.name} {where.dim}".encode())
            total.update(where.index.numpy().tobytes())
            total.update(_bytes(values))
        for factors in self.factors:
            total.update(f"{factors.name} {tuple(factors.left.shape)}".encode())
            total.update(_bytes(factors.left) + _bytes(factors.right))
        return total.hexdigest()

    def share(self, model: Model) -> float:
        """`parameters` as a share of all parameters of the model."""
        return self.parameters / model.n_parameters

    def summary(self, model: Model) -> dict[str, float]:
        """Norm of the change to each parameter, by name."""
        self._refuse_others(model)
        names = dict.fromkeys([*(f.name for f in self.factors), *(w.name for w in self.slices)])
        after = {name: model.parameters[name].detach().clone() for name in names}
        self._write(after)
        return {name: float((after[name] - model.parameters[name].detach()).norm()) for name in names}

    @contextmanager
    def applied(self, model: Model) -> Iterator[Model]:
        """The model with the edit in place; on leaving, also by an error, bit-identical weights.

        Raises:
            UserError: the edit was made for other weights.
        """
        self._refuse_others(model)
        parameters = model.parameters
        whole = {f.name: parameters[f.name].detach().clone() for f in self.factors}
        before = [where.read(parameters[where.name]) for where in self.slices]
        model.edits.append(self)
        try:
            self._write(parameters)
            yield model
        finally:
            for where, values in zip(reversed(self.slices), reversed(before), strict=True):
                where.write_(parameters[where.name], values)
            with torch.no_grad():
                for name, values in whole.items():
                    parameters[name].copy_(values)
            model.edits.remove(self)

    def apply_(self, model: Model) -> Model:
        """Put the edit in place for good."""
        self._refuse_others(model)
        self._write(model.parameters)
        return model

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        for i, (where, values) in enumerate(zip(self.slices, self.values, strict=True)):
            tensors[f"{i}.index"] = where.index.contiguous()
            tensors[f"{i}.values"] = values.detach().cpu().contiguous()
        for i, factors in enumerate(self.factors):
            tensors[f"{i}.left"] = factors.left.detach().cpu().contiguous()
            tensors[f"{i}.right"] = factors.right.detach().cpu().contiguous()
        head = {
            "format": FORMAT,
            "made_for": self.made_for,
            "slices": [[s.name, s.dim] for s in self.slices],
            "factors": [f.name for f in self.factors],
            "about": self.about,
        }
        # safetensors writes several entries in any order; one makes the file the same each time
        write_atomic(path, serialize(tensors, metadata={"loka": json.dumps(head, sort_keys=True)}))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Edit:
        """Read what `save` wrote.

        Raises:
            UserError: no such file, or one that is no edit.
        """
        if not Path(path).is_file():
            raise UserError(f"there is no edit file {str(path)!r}; `loka ablate` or `edit.save(...)` writes one.")
        try:
            with safe_open(path, framework="pt") as file:
                head = json.loads((file.metadata() or {}).get("loka", "{}"))
                if head.get("format") != FORMAT:
                    raise UserError(f"{str(path)!r} is a safetensors file but no LOKA edit; give one from `edit.save`.")
                names = head["slices"]
                slices = [Slice(name, dim, file.get_tensor(f"{i}.index")) for i, (name, dim) in enumerate(names)]
                values = [file.get_tensor(f"{i}.values") for i in range(len(names))]
                factors = tuple(
                    Factors(name, file.get_tensor(f"{i}.left"), file.get_tensor(f"{i}.right"))
                    for i, name in enumerate(head.get("factors", []))
                )
                return cls(tuple(slices), tuple(values), head["made_for"], head["about"], factors)
        except (SafetensorError, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
            raise UserError(f"the edit file {str(path)!r} cannot be read ({error}); make it again.") from error

    def _by_name(self) -> dict[str, list[tuple[Slice, Tensor]]]:
        groups: dict[str, list[tuple[Slice, Tensor]]] = defaultdict(list)
        for where, values in zip(self.slices, self.values, strict=True):
            groups[where.name].append((where, values))
        return groups

    def _write(self, parameters: Mapping[str, Tensor]) -> None:
        for factors in self.factors:
            factors.add_(parameters[factors.name])
        for where, values in zip(self.slices, self.values, strict=True):
            where.write_(parameters[where.name], values)

    def _refuse_others(self, model: Model) -> None:
        for where in (*self.slices, *self.factors):
            if where.name not in model.parameters:
                raise UserError(f"the edit changes {where.name}, which {model.name} does not have; load its own model.")
        for factors in self.factors:
            factors.check(model.parameters[factors.name])
        now = model.digest()
        if now != self.made_for:
            raise UserError(
                f"the edit was made for weights {self.made_for[:12]}, but {model.name} has {now[:12]}; "
                "load the model it was made for, or make the edit again on this one."
            )


def capture(model: Model, slices: list[Slice], made_for: str, about: dict[str, Any]) -> Edit:
    """The edit that leads from the weights `made_for` to what the slices hold now."""
    values = tuple(where.read(model.parameters[where.name]).cpu() for where in slices)
    return Edit(tuple(slices), values, made_for, about)


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _cells(group: list[tuple[Slice, Tensor]]) -> int:
    rows = [(s, v) for s, v in group if s.dim == 0]
    columns = [(s, v) for s, v in group if s.dim == 1]
    both = sum(len(r.index) for r, _ in rows) * sum(len(c.index) for c, _ in columns)
    return sum(v.numel() for _, v in group) - both
