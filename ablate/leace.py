"""Closed-form concept erasure: remove the answer from the sites' output and change little else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .._util.errors import UserError
from ..knowledge import Case, accepts_spec, neutral_working
from ..model import Edit, Site, Slice, chunks, pad, slices
from ..model.anatomy import feature_dim
from ..model.run.lookup import inputs_at, second_moments
from ..model.tokens import token_ids
from .common import edit_record, writing_sites
from .rewriting.closed_form import erasure

if TYPE_CHECKING:
    from ..model import Model

ROWS = 64


@accepts_spec
def leace(model: Model, case: Case, sites: Iterable[Site], *, rank: int | None = None, ridge: float = 0.01) -> Edit:
    """Remove from what the sites write the subspace that distinguishes the forget facts' answers.

    Least-squares concept erasure (LEACE; Belrose et al. 2023, arXiv:2306.03819), multiplied into the columns. The sites
    of one map together write a state. The means of this state by answer, taken at the end of the forget facts' working
    prompts, span the subspace. Of all linear maps that send the subspace to zero, the weights are multiplied by the one
    that changes the state least on neutral text, in mean square. Afterwards, no linear probe on what these sites write
    predicts the answer better than chance on those prompts. Other sites may still write it.

    Args:
        sites: the sites whose output loses the subspace: neurons, heads, `attn` or `mlp`.
        rank: the largest number of directions to remove, strongest first; by default all of them, one fewer than there
            are answers.
        ridge: this share of the mean diagonal of the states' second moment is added to its diagonal.

    Cost: a forward pass over the neutral text and one over the forget facts' prompts.

    Raises:
        UserError: no sites, sites that do not write to the residual stream directly, or facts that share one answer.
    """
    ordered = writing_sites("leace", model, sites)
    asked = [(prompt, fact.answer) for fact in case.forget.working for prompt in fact.prompts]
    if len({answer for _, answer in asked}) < 2:
        raise UserError(
            f"the forget facts share one answer, {asked[0][1]!r}, so there is nothing to distinguish; add facts."
        )
    cut = slices(model, ordered, reads=False)
    modules = [model.hf.get_submodule(where.name.removesuffix(".weight")) for where in cut]
    means = _by_answer(model, modules, asked)
    moments = second_moments(model, modules, neutral_working(model, case))
    values = [_erased(model, *parts, rank, ridge) for parts in zip(cut, modules, means, moments, strict=True)]
    record = edit_record("leace", model, case, ordered, {"rank": rank, "ridge": ridge})
    return Edit(tuple(cut), tuple(values), model.digest(), record)


def _by_answer(model: Model, modules: list[nn.Module], asked: Sequence[tuple[str, str]]) -> list[Tensor]:
    """Each map's mean input at the prompts' last token, by answer and centred, `[answer, d_in]`."""
    read: list[list[Tensor]] = []
    for part in chunks(len(asked), ROWS):
        batch = pad(model, token_ids(model, [p for p, _ in asked[part]]), [1] * len(asked[part]))
        read.append(inputs_at(model, modules, batch, torch.full((len(asked[part]),), -1, device=model.device)))
    answers = [a for _, a in asked]
    masks = [torch.tensor([a == answer for a in answers], device=model.device) for answer in dict.fromkeys(answers)]
    whole = [torch.cat(parts).double() for parts in zip(*read, strict=True)]
    means = [torch.stack([x[rows].mean(0) for rows in masks]) for x in whole]
    return [m - m.mean(0) for m in means]


def _erased(
    model: Model, where: Slice, module: nn.Module, means: Tensor, moment: Tensor, rank: int | None, ridge: float
) -> Tensor:
    """The slice's weights multiplied by the eraser, in the slice's shape."""
    index, transposed = where.index.to(means.device), feature_dim(module, out=True) == 1
    weights = where.read(model.parameters[where.name]).double()
    weights = weights if not transposed else weights.t()  # [d_out, k]
    concept = weights @ means[:, index].t()
    spread = weights @ moment[index][:, index] @ weights.t()
    spread += ridge * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype, device=spread.device)
    erased = weights + erasure(concept, spread, rank=rank).change.t() @ weights
    return (erased.t() if transposed else erased).to(model.dtype).cpu().contiguous()
