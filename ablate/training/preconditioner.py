"""Training in coordinates in which what a map reads is white, so that a step for one subject moves others less.

A gradient step on the rows of a map moves what they write for every input by its product with the inputs that the
gradient came from; inputs of one kind share most of their length, so that most of the step is spent on what they have
in common. The inverse of their second moment takes that share out: it is the factor by which ROME and MEMIT divide a
key, and the input factor of K-FAC (Martens & Grosse 2015, arXiv:1503.05671).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..._util.errors import UserError
from ...knowledge import Case, neutral_working
from ...model import Slice, Trainable
from ...model.layout import feature_dim
from ...model.run.lookup import second_moments

if TYPE_CHECKING:
    from ...model import Model

Roots = Sequence[Tensor | None]


def whitening(model: Model, case: Case, where: Sequence[Slice], damping: float) -> Roots:
    """The root by which each slice's coordinates are made white, `[d_in, d_in]`; `None` for columns and biases.

    It is `(C + damping)^(-1/2)`, scaled to a mean square of one. `C` is the second moment of what the slice's map
    reads, half of it on the case's neutral working text, half on the working prompts of the forgotten relations' facts
    to keep, known or not, each half scaled to a mean square of one; without such facts, that on text alone.

    Cost: a forward pass over the text and the prompts and an eigendecomposition for each map, once for a model and a
    case; a matrix for each map is kept for its next edits.

    Raises:
        UserError: see `check_damping`.
    """
    check_damping(damping)
    names = [_map(w) if _reads(model, w) else None for w in where]
    known = model.cache.get("roots", (damping, model.digest(), case.digest), dict[str | None, Tensor])
    if new := [name for name in dict.fromkeys(names) if name and name not in known]:
        known |= zip(new, _roots(model, case, new, damping), strict=True)
    return [known.get(name) for name in names]


def check_damping(damping: float | None) -> None:
    """Refuse what is no damping.

    Raises:
        UserError: a number that is not above zero, or is infinite.
    """
    if damping is not None and not 0 < damping < math.inf:
        raise UserError(f"whiten={damping} is no damping; give a number above 0, such as 0.1, or None.")


def _roots(model: Model, case: Case, names: Sequence[str], damping: float) -> list[Tensor]:
    kept = [f for f in (*case.retain.working, *case.unknown) if f.relation in case.forgotten_relations]
    prompts = [p for f in kept for p in f.prompts]
    modules = [model.hf.get_submodule(name) for name in names]
    halves = [second_moments(model, modules, texts) for texts in (neutral_working(model, case), prompts) if texts]
    return [_root(some, damping) for some in zip(*halves, strict=True)]


def whiten_(optimizer: torch.optim.Optimizer, trainable: Trainable, roots: Roots) -> None:
    """Have the optimizer step in white coordinates `w = v @ root`: it is given the gradient of `v`, and steps `v`.

    Memory: a copy of the parameters while a step lasts.
    """
    every = zip(trainable.parameters, trainable.slices, roots, strict=True)
    held = [(p, where.dim, root) for p, where, root in every if root is not None]
    before: list[Tensor] = []

    @torch.no_grad()
    def gradients(*_: object) -> None:
        before[:] = [p.detach().clone() for p, _, _ in held]
        for p, dim, root in held:
            if p.grad is not None:
                p.grad = _times(p.grad, dim, root)

    @torch.no_grad()
    def steps(*_: object) -> None:
        for (p, dim, root), old in zip(held, before, strict=True):
            p.copy_(old + _times(p - old, dim, root))
        before.clear()

    optimizer.register_step_pre_hook(gradients)
    optimizer.register_step_post_hook(steps)


def _map(where: Slice) -> str:
    return where.name.rsplit(".", 1)[0]


def _reads(model: Model, where: Slice) -> bool:
    """Whether a slice is rows of a map, each with a number for all that the map reads."""
    return where.name.endswith(".weight") and where.dim == feature_dim(model.hf.get_submodule(_map(where)), out=True)


def _root(moments: Sequence[Tensor], damping: float) -> Tensor:
    values, vectors = torch.linalg.eigh(sum(m / m.diagonal().mean() for m in moments) / len(moments))
    scales = (values.clamp(min=0) + damping).rsqrt()
    scales = scales / scales.square().mean().sqrt()
    return ((vectors * scales) @ vectors.t()).float()


def _times(values: Tensor, dim: int, root: Tensor) -> Tensor:
    """Rows `[k, d_in]` by the root, or for GPT-2's maps, whose outputs are on axis 1, `[d_in, k]`."""
    root = root.to(values)
    return root @ values if dim else values @ root
