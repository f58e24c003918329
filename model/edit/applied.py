"""The edits in place on a model: their order, their dependencies and their removal."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import UserError
from .content import EditContent

if TYPE_CHECKING:
    from ..load import Model


class Originals:
    """The values that an edit replaces on a model. The model keeps them for as long as the edit is in place.

    `whole`: the matrices that low-rank changes are added to, by name; `parts`: the values of each slice.
    """

    def __init__(self, edit: EditContent, model: Model) -> None:
        self.edit, self.model = edit, model
        self.whole = {f.name: model.parameters[f.name].detach().clone() for f in edit.factors}
        self.parts: list[Tensor] = [where.read(model.parameters[where.name]) for where in edit.slices]

    def restore(self) -> None:
        """Take the edit off, bit for bit; no edit that was made on it may be in place. It can be called again."""
        parameters = self.model.parameters
        for where, values in zip(reversed(self.edit.slices), reversed(self.parts), strict=True):
            where.write_(parameters[where.name], values)
        with torch.no_grad():
            for name, values in self.whole.items():
                parameters[name].copy_(values)
        self.model.edits.pop(self.edit, None)
        self.model.originals.pop(self.edit, None)


class Applied(AbstractContextManager["Model"]):
    """An edit in place while the context lasts. The exit, even by an error, restores the weights bit for bit.

    Contexts may be left in any order, unless another edit in place was made on this one. This one then stays; it can
    be left again after the other, and `model.restore()` takes off both. After that, leaving does nothing.

    Raises:
        UserError: on entering, the edit was made for other weights, is in place already, or shares weights with
            another one that it was not made on. On leaving, another edit in place was made on this one; if an error
            leaves the context, that error gets a note instead.
    """

    def __init__(self, edit: EditContent, model: Model) -> None:
        self.edit, self.model = edit, model
        self.originals: Originals | None = None

    def __enter__(self) -> Model:
        edit, model = self.edit, self.model
        on = beneath(edit, model)
        self.originals = originals = Originals(edit, model)
        try:
            model.originals[edit], model.edits[edit] = originals, on
            edit.write_(model)
        except BaseException:
            originals.restore()
            raise
        return model

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.originals is None or self.model.originals.get(self.edit) is not self.originals:
            return
        above = sum(self.edit in on for on in self.model.edits.values())
        if not above:
            self.originals.restore()
            return
        problem = (
            f"{above} later edit(s) of {self.model.name} were made on this one; take those off first, or take off all "
            "edits by model.restore()."
        )
        if error is None:
            raise UserError(problem)
        error.add_note(problem)


def beneath(edit: EditContent, model: Model) -> tuple[EditContent, ...]:
    """The edits that were in place when this one was made.

    All other edits that are in place now must share no weight with it. Raises `UserError` as `Applied` does.
    """
    edit.check(model)
    now = model.digest()
    if edit in model.edits or (now != edit.made_for and edit.in_place(model)):
        raise UserError(f"this edit is in place on {model.name} already; apply it only once.")
    if now == edit.made_for:
        return tuple(model.edits)
    on = next((on for other, on in model.edits.items() if other.made_for == edit.made_for), None)
    if on is None:
        raise UserError(
            f"the edit was made for weights {edit.made_for[:12]}, but {model.name} has {now[:12]}; "
            "load the model it was made for, or make the edit again on this one."
        )
    for other in model.edits:
        if other not in on and (shared := edit.meets(other)):
            raise UserError(
                f"the edit and another one on {model.name} both change {shared[0]}, and neither was made on the "
                "other; make this one again while that one is applied."
            )
    return on
