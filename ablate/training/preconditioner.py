"""A preconditioner: training in coordinates in which the inputs of a map are white.

A gradient step on the rows of a map changes the map's output for every input, by the product of that input with the
inputs that the gradient came from. Inputs of one kind have most of their length in common, so a plain step for one
subject moves the others almost as far. The inverse of the inputs' second moment removes the common share. It is the
factor by which ROME and MEMIT divide a key, and the input factor of K-FAC (Martens & Grosse 2015, arXiv:1503.05671).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...knowledge import Case, neutral_working
from ...model import Slice, Trainable
from ...model.anatomy import feature_dim
from ...model.run.lookup import second_moments

if TYPE_CHECKING:
    from ...model import Model

Roots = Sequence[Tensor | None]


def roots(model: Model, case: Case, where: Sequence[Slice], damping: float) -> Roots:
    """The root that whitens each slice's coordinates, `[d_in, d_in]`; `None` for columns and biases.

    It is `(C + damping)^(-1/2)`, scaled to a mean square of one. `C` is the second moment of the inputs of the slice's
    map. Half of it comes from the case's neutral working text, half from the working prompts of the facts to keep in
    the forgotten relations, known or not. Each half is scaled to a mean square of one. Without such facts, all of it
    comes from the text.

    Cost: a forward pass over the text and the prompts and an eigendecomposition for each map, once for a model and a
    case. One matrix for each map is stored on the model for later edits.
    """
    names = [_map(w) if _is_rows(model, w) else None for w in where]
    known = model.cache.get("roots", (damping, model.digest(), case.digest), dict[str | None, Tensor])
    if new := [name for name in dict.fromkeys(names) if name and name not in known]:
        known |= zip(new, _roots(model, case, new, damping), strict=True)
    return [known.get(name) for name in names]


def _roots(model: Model, case: Case, names: Sequence[str], damping: float) -> list[Tensor]:
    facts = case.same_relation([*case.retain.working, *case.unknown])
    prompts = [p for f in facts for p in f.prompts]
    modules = [model.hf.get_submodule(name) for name in names]
    halves = [second_moments(model, modules, texts) for texts in (neutral_working(model, case), prompts) if texts]
    return [_root(moments, damping) for moments in zip(*halves, strict=True)]


def precondition_(optimizer: torch.optim.Optimizer, trainable: Trainable, roots: Roots) -> None:
    """Make the optimizer step in the coordinates `v` of `w = v @ root`: it gets the gradient of `v`, and steps `v`.

    Memory: a copy of the parameters during a step.
    """
    every = zip(trainable.parameters, trainable.slices, roots, strict=True)
    rows = [(p, where.dim, root) for p, where, root in every if root is not None]
    before: list[Tensor] = []

    @torch.no_grad()
    def transform_gradients(*_: object) -> None:
        before[:] = [p.detach().clone() for p, _, _ in rows]
        for p, dim, root in rows:
            if p.grad is not None:
                p.grad = _times(p.grad, dim, root)

    @torch.no_grad()
    def transform_steps(*_: object) -> None:
        for (p, dim, root), old in zip(rows, before, strict=True):
            p.copy_(old + _times(p - old, dim, root))
        before.clear()

    optimizer.register_step_pre_hook(transform_gradients)
    optimizer.register_step_post_hook(transform_steps)


def _map(where: Slice) -> str:
    return where.name.rsplit(".", 1)[0]


def _is_rows(model: Model, where: Slice) -> bool:
    """Whether a slice is rows of a map, with one number for each input of the map."""
    return where.name.endswith(".weight") and where.dim == feature_dim(model.hf.get_submodule(_map(where)), out=True)


def _root(moments: Sequence[Tensor], damping: float) -> Tensor:
    values, vectors = torch.linalg.eigh(sum(m / m.diagonal().mean() for m in moments) / len(moments))
    scales = (values.clamp(min=0) + damping).rsqrt()
    scales = scales / scales.square().mean().sqrt()
    return ((vectors * scales) @ vectors.t()).float()


def _times(values: Tensor, dim: int, root: Tensor) -> Tensor:
    """Rows `[k, d_in]` times the root; for GPT-2's maps, whose outputs are on axis 1, columns `[d_in, k]`."""
    root = root.to(values)
    return root @ values if dim else values @ root
