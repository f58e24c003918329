"""What changes in a model, kept apart from the model."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from ..._util.errors import UserError
from ..._util.files import write_atomic
from ..layout import Slice
from .applied import Applied, beneath
from .factors import Factors
from .summary import Summary, summarize

if TYPE_CHECKING:
    from ..load import Model

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

    @property
    def names(self) -> list[str]:
        """The parameters that it changes."""
        return list(dict.fromkeys(part.name for part in (*self.factors, *self.slices)))

    def summary(self, model: Model) -> Summary:
        """How much it changes, by parameter and layer, with a digest of all else before and after.

        Raises:
            UserError: the edit was made for other weights.
        """
        return summarize(self, model)

    def scaled(self, model: Model, strength: float) -> Edit:
        """The same edit gone only a share of the way, from the model's weights to its own; 1 is the edit itself.

        Raises:
            UserError: the edit was made for other weights, or a strength that is no number above 0.
        """
        if not (strength > 0 and math.isfinite(strength)):
            raise UserError(f"the strength {strength:g} must be above 0; 1 is the whole edit.")
        beneath(self, model)
        if strength == 1:
            return self
        values = []
        for where, new in zip(self.slices, self.values, strict=True):
            old = where.read(model.parameters[where.name]).cpu()
            values.append(old + strength * (new - old))
        factors = tuple(Factors(f.name, strength * f.left, f.right) for f in self.factors)
        return Edit(self.slices, tuple(values), self.made_for, self.about | {"strength": strength}, factors)

    def meets(self, other: Edit) -> list[str]:
        """The parameters of which both change the same numbers; without any, the two can be in place in any order."""
        return [name for name in self.names if _cross(self._reach(name), other._reach(name))]

    def applied(self, model: Model) -> Applied:
        """The model with the edit in place, as a context; on leaving, also by an error, bit-identical weights.

        An edit goes on the weights that it was made for. Those may carry other edits meanwhile, as long as these
        share no weight with it; they come off in any order, but none from under an edit that was made on it.

        Raises:
            UserError: the edit was made for other weights, or is in place already.
        """
        return Applied(self, model)

    def apply_(self, model: Model) -> Model:
        """Put the edit in place for good.

        Raises:
            UserError: as `applied`; or it was made on edits that are to come off again.
        """
        if beneath(self, model):
            raise UserError(
                f"the edit was made on others that {model.name} carries for a while; apply those for good first, "
                "or merge them with it."
            )
        return self.write_(model)

    def write_(self, model: Model) -> Model:
        """Put the edit in place whatever the weights are: `applied` and `apply_` check first."""
        for factors in self.factors:
            factors.add_(model.parameters[factors.name])
        for where, values in zip(self.slices, self.values, strict=True):
            where.write_(model.parameters[where.name], values)
        return model

    def check(self, model: Model) -> None:
        """Raise `UserError` unless the model has all that it changes."""
        for part in (*self.slices, *self.factors):
            if part.name not in model.parameters:
                raise UserError(f"the edit changes {part.name}, which {model.name} does not have; load its own model.")
        for factors in self.factors:
            factors.check(model.parameters[factors.name])
        for where, values in zip(self.slices, self.values, strict=True):
            where.check(model.parameters[where.name], values)

    def in_place(self, model: Model) -> bool:
        """Whether its slices hold their new values. Of factors nothing tells: then it is false."""
        held = zip(self.slices, self.values, strict=True)
        return (
            bool(self.slices)
            and not self.factors
            and all(
                torch.equal(s.read(model.parameters[s.name]), v.to(model.device, model.parameters[s.name].dtype))
                for s, v in held
            )
        )

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

    def _reach(self, name: str) -> tuple[set[int], set[int], bool]:
        """The rows, the columns, and whether it is the whole parameter that it changes."""
        rows, columns = (
            {i for s in self.slices if (s.name, s.dim) == (name, d) for i in s.index.tolist()} for d in (0, 1)
        )
        return rows, columns, any(f.name == name for f in self.factors)


def capture(model: Model, slices: list[Slice], made_for: str, about: dict[str, Any]) -> Edit:
    """The edit that leads from the weights `made_for` to what the slices hold now."""
    values = tuple(where.read(model.parameters[where.name]).cpu() for where in slices)
    return Edit(tuple(slices), values, made_for, about)


def _cross(a: tuple[set[int], set[int], bool], b: tuple[set[int], set[int], bool]) -> bool:
    """Whether two reaches have a number in common: every row crosses every column."""
    if a[2] or b[2]:
        return all(any(reach) for reach in (a, b))
    return bool(a[0] & b[0] or a[1] & b[1] or (a[0] and b[1]) or (a[1] and b[0]))


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _cells(group: list[tuple[Slice, Tensor]]) -> int:
    rows = [(s, v) for s, v in group if s.dim == 0]
    columns = [(s, v) for s, v in group if s.dim == 1]
    both = sum(len(r.index) for r, _ in rows) * sum(len(c.index) for c, _ in columns)
    return sum(v.numel() for _, v in group) - both
