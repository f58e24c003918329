"""An edit: a change of a model as a value that can be applied, removed, saved and loaded."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from ..._util.errors import UserError
from ..._util.files import parse_json, seal, write_atomic
from ..._util.records import read_record
from ..layout import Slice
from .applied import Applied, beneath
from .content import EditContent
from .factors import Factors
from .record import EditRecord
from .summary import EditSummary, summarize

if TYPE_CHECKING:
    from ..load import Model

FORMAT = "loka-edit-2"


@dataclass(frozen=True, eq=False)
class Edit(EditContent):
    """A change of some of a model's weights, made for one model; see `EditContent` for its fields.

    Example:
        edit = loka.Edit.load("capitals.safetensors")
        with edit.applied(model):
            print(loka.verify.recall(model, case))
    """

    def applied(self, model: Model) -> Applied:
        """Put the edit in place while the context lasts. The exit, even by an error, restores the weights bit for bit.

        An edit applies to the weights that it was made for. Other edits may be in place at the same time if they share
        no weight with it. Edits can be removed in any order, but not while another edit that was made on them is in
        place. `model.restore()` takes off all of them.

        Raises:
            UserError: the edit was made for other weights, or is in place already.
        """
        return Applied(self, model)

    def apply_(self, model: Model) -> Model:
        """Put the edit in place for good.

        Raises:
            UserError: as `applied`; or the edit was made on edits that are in place only within a context.
        """
        if beneath(self, model):
            raise UserError(
                f"the edit was made on edits that {model.name} has only within a context; apply those for good first, "
                "or merge them with it."
            )
        return self.write_(model)

    def summary(self, model: Model) -> EditSummary:
        """The size of its change by parameter and layer, with a digest of all other weights before and after.

        Raises:
            UserError: the edit was made for other weights.
        """
        return summarize(self, model)

    def scaled(self, model: Model, strength: float) -> Edit:
        """The same edit at a share of its strength, between the model's weights and its own; 1 is the edit itself.

        Raises:
            UserError: the edit was made for other weights, or the strength is not a finite number above 0.
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
        return replace(self, values=tuple(values), factors=factors, record=replace(self.record, strength=strength))

    def to(self, dtype: torch.dtype) -> Edit:
        """The same edit with its values in the number type of a model's weights."""
        return replace(self, values=tuple(values.to(dtype) for values in self.values))

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
            "record": self.record.to_json(),
            "digest": _seal(self),
        }
        # safetensors writes several metadata entries in any order; with one entry, equal edits give equal files
        write_atomic(path, serialize(tensors, metadata={"loka": json.dumps(head, sort_keys=True)}))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Edit:
        """Read what `save` wrote.

        Raises:
            UserError: there is no such file, or it is not an edit.
        """
        if not Path(path).is_file():
            raise UserError(f"there is no edit file {str(path)!r}; `loka ablate` or `edit.save(...)` writes one.")
        try:
            with safe_open(path, framework="pt") as file:
                data = parse_json((file.metadata() or {}).get("loka", "{}"))
                _check_format(path, data.get("format") if isinstance(data, dict) else None)
                head = read_record(_Header, data, "its header")
                names: list[str] = list(file.keys())
                # copies: a tensor that maps the file would change with it
                tensors = {name: file.get_tensor(name).clone() for name in names}
                slices = [Slice(name, dim, tensors[f"{i}.index"]) for i, (name, dim) in enumerate(head.slices)]
                values = [tensors[f"{i}.values"] for i in range(len(slices))]
                factors = tuple(
                    Factors(name, tensors[f"{i}.left"], tensors[f"{i}.right"]) for i, name in enumerate(head.factors)
                )
                found = cls(tuple(slices), tuple(values), head.made_for, head.record, factors)
                _check_content(found, len(tensors))
                if "digest" in data and head.digest != _seal(found):
                    raise ValueError("it has changed since it was written")
                return found
        except _Refused:
            raise
        except (SafetensorError, ValueError, KeyError, OSError, UserError) as error:
            reason = str(error).rstrip(".")
            raise UserError(f"the edit file {str(path)!r} cannot be read ({reason}); make it again.") from error


@dataclass(frozen=True)
class _Header:
    """The metadata of an edit file; see `EditContent`.

    `slices`: the parameter and axis of each. `digest`: of the content and the record; earlier versions wrote none.
    """

    format: str
    made_for: str
    slices: tuple[tuple[str, int], ...]
    record: EditRecord
    factors: tuple[str, ...] = ()
    digest: str | None = None


class _Refused(UserError):
    """The file is whole, but not one that this version reads."""


def capture(model: Model, slices: list[Slice], made_for: str, record: EditRecord) -> Edit:
    """The edit that leads from the weights `made_for` to what the slices hold now."""
    values = tuple(where.read(model.parameters[where.name]).cpu() for where in slices)
    return Edit(tuple(slices), values, made_for, record)


def _seal(edit: Edit) -> str:
    return seal({"content": edit.digest(), "record": edit.record.to_json()})


def _check_format(path: str | Path, found: object) -> None:
    if found == FORMAT:
        return
    if str(found).startswith("loka-edit-"):
        raise _Refused(f"{str(path)!r} was written by another version of LOKA ({found}, not {FORMAT}); make it again.")
    raise _Refused(f"{str(path)!r} is a safetensors file but not a LOKA edit; give one from `edit.save`.")


def _check_content(edit: Edit, stored: int) -> None:
    """Raise `ValueError` unless a header read from a file describes its tensors."""
    if stored != 2 * (len(edit.slices) + len(edit.factors)):
        raise ValueError(f"its header names other tensors than the {stored} that it holds")
    for where, values in zip(edit.slices, edit.values, strict=True):
        index = where.index
        if where.dim not in (0, 1) or index.ndim != 1 or index.dtype != torch.int64 or (index.diff() < 1).any():
            raise ValueError(f"its rows or columns of {where.name!r} are not ascending numbers")
        if (index < 0).any() or values.ndim <= where.dim or values.shape[where.dim] != len(index):
            raise ValueError(f"its values of {where.name!r} do not fit their rows or columns")
        _check_numbers(where.name, values)
    for factors in edit.factors:
        if not factors.left.ndim == factors.right.ndim == 2 or factors.left.shape[1] != factors.right.shape[0]:
            raise ValueError(f"its factors of {factors.name!r} are not two matrices that can be multiplied")
        _check_numbers(factors.name, factors.left)
        _check_numbers(factors.name, factors.right)


def _check_numbers(name: str, values: Tensor) -> None:
    if not values.is_floating_point() or not values.isfinite().all():
        raise ValueError(f"its values of {name!r} are not finite numbers")
