"""Closed-form concept erasure: what sites write keeps everything but the answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .._util.errors import UserError
from ..knowledge import Case, neutral_working
from ..model import Edit, Site, Slice, chunks, pad, slices
from ..model.layout import feature_dim
from ..model.run.lookup import inputs_at, second_moments
from .rewriting.closed_form import erasure
from .tune import described

if TYPE_CHECKING:
    from ..model import Model

ROWS = 64


def leace(model: Model, case: Case, sites: Iterable[Site], *, rank: int | None = None, ridge: float = 0.01) -> Edit:
    """Take the subspace that tells the forget facts' answers apart out of what the sites write to the stream.

    Least-squares concept erasure (LEACE; Belrose et al. 2023, arXiv:2306.03819) baked into the columns: the sites of
    a map together write a state; behind the forget facts' working prompts its means by answer span the subspace,
    and of all linear maps that send it to zero, the one that moves the state least on neutral text (in the mean
    square) is multiplied into the weights. After it no linear probe on what these sites write reads off the answer
    better than chance on those prompts; other sites may still write it.

    Args:
        rank: how many directions go at most, the strongest first; by default all, one fewer than there are answers.
        ridge: share of the mean diagonal that is added to the diagonal of the states' second moment.

    Cost: a forward pass over the neutral text and one over the forget facts' prompts.

    Raises:
        UserError: no sites, sites that write nothing themselves, or facts that share one answer.
    """
    chosen = sorted(set(sites))
    for site in chosen:
        model.check_site(site)
    if not chosen or any(s.part in ("kv", "resid") for s in chosen):
        raise UserError("leace needs sites that write themselves: neuron, head, attn or mlp.")
    case = case.on(model)
    asked = [(prompt, fact.answer) for fact in case.forget.working for prompt in fact.prompts]
    if len({answer for _, answer in asked}) < 2:
        raise UserError(
            f"the forget facts share one answer, so that nothing tells it apart: {asked[0][1]!r}; add facts."
        )
    cut = slices(model, chosen, reads=False)
    modules = [model.hf.get_submodule(where.name.removesuffix(".weight")) for where in cut]
    means = _by_answer(model, modules, asked)
    moments = second_moments(model, modules, neutral_working(model, case))
    values = [_kept(model, *of, rank, ridge) for of in zip(cut, modules, means, moments, strict=True)]
    about = described("leace", model, case, chosen, {"rank": rank, "ridge": ridge})
    return Edit(tuple(cut), tuple(values), model.digest(), about)


def _by_answer(model: Model, modules: list[nn.Module], asked: list[tuple[str, str]]) -> list[Tensor]:
    """Of each map's input at the prompts' last token: the mean by answer less the mean of these, `[answer, d_in]`."""
    read: list[list[Tensor]] = []
    for part in chunks(len(asked), ROWS):
        batch = pad(model, [model.tokenizer(p)["input_ids"] for p, _ in asked[part]], [1] * len(asked[part]))
        read.append(inputs_at(model, modules, batch, torch.full((len(asked[part]),), -1, device=model.device)))
    answers = [a for _, a in asked]
    which = [torch.tensor([a == one for a in answers], device=model.device) for one in dict.fromkeys(answers)]
    whole = [torch.cat(parts).double() for parts in zip(*read, strict=True)]
    means = [torch.stack([x[rows].mean(0) for rows in which]) for x in whole]
    return [m - m.mean(0) for m in means]


def _kept(
    model: Model, where: Slice, module: nn.Module, means: Tensor, moment: Tensor, rank: int | None, ridge: float
) -> Tensor:
    """The slice's weights with the eraser multiplied in, shaped like the slice."""
    index, transposed = where.index.to(means.device), feature_dim(module, out=True) == 1
    held = where.read(model.parameters[where.name]).double()
    held = held if not transposed else held.t()  # [d_out, k]
    concept = held @ means[:, index].t()
    spread = held @ moment[index][:, index] @ held.t()
    spread += ridge * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype, device=spread.device)
    kept = held + erasure(concept, spread, rank=rank).change.t() @ held
    return (kept.t() if transposed else kept).to(model.dtype).cpu().contiguous()
